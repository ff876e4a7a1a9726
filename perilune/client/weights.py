"""The versions that a run's trainer keeps: list them, pin them, have the fleet serve an older one."""

from __future__ import annotations

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1.weights_pb2 import (
    ListVersionsRequest,
    ListVersionsResponse,
    PinVersionRequest,
    ServeVersionRequest,
)
from perilune.api.weights.v1.weights_pb2_grpc import WeightServiceStub
from perilune.channel import Credentials
from perilune.client.connection import DEADLINE_S, AsyncConnection, Connection
from perilune.client.messages import message

SERVE_DEADLINE_S = 300.0  # an older version is read from disk, and checked


class WeightsClient(Connection):
    """Calls a trainer, whose address `RunClient.fleet` says.

    Every method raises UnavailableError if the trainer does not answer, and NotFoundError for a run that it does not
    serve or a version that it does not keep.
    """

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        super().__init__(address, deadline_s, credentials)
        self._stub = WeightServiceStub(self._channel)

    def versions(self, run_id: str) -> ListVersionsResponse:
        """The versions that are kept, and the one that is served."""
        return self._call(self._stub.ListVersions, message(ListVersionsRequest, run_id=run_id))

    def pin(self, run_id: str, number: int, pinned: bool = True) -> None:
        """Keeps a version whatever comes after it, or no longer."""
        self._call(self._stub.PinVersion, message(PinVersionRequest, run_id=run_id, number=number, unpin=not pinned))

    def serve(self, run_id: str, number: int | None = None) -> PolicyVersion:
        """Has the fleet serve a version, and holds back newer ones; None: the newest again, and those to come."""
        request = message(ServeVersionRequest, run_id=run_id, number=number)
        return self._call(self._stub.ServeVersion, request, SERVE_DEADLINE_S).served


class AsyncWeightsClient(AsyncConnection):
    """WeightsClient for asyncio."""

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        super().__init__(address, deadline_s, credentials)
        self._stub = WeightServiceStub(self._channel)

    async def versions(self, run_id: str) -> ListVersionsResponse:
        """See WeightsClient.versions."""
        return await self._call(self._stub.ListVersions, message(ListVersionsRequest, run_id=run_id))

    async def pin(self, run_id: str, number: int, pinned: bool = True) -> None:
        """See WeightsClient.pin."""
        await self._call(
            self._stub.PinVersion, message(PinVersionRequest, run_id=run_id, number=number, unpin=not pinned)
        )

    async def serve(self, run_id: str, number: int | None = None) -> PolicyVersion:
        """See WeightsClient.serve."""
        request = message(ServeVersionRequest, run_id=run_id, number=number)
        return (await self._call(self._stub.ServeVersion, request, SERVE_DEADLINE_S)).served
