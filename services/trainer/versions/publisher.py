"""From a policy in torch to a published version: a snapshot, what changed since the last one, and the server of both.

The snapshot is the only copy: it is what subscribers are sent, and the next version is written down as its change.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1 import weights_pb2
from perilune.errors import NotFoundError, StateError
from perilune.runtime.audit import Audit
from perilune.runtime.service import rpc_errors
from perilune.weights.choice import Measured
from perilune.weights.server import SERVICE as SERVICE  # noqa: PLC0414
from perilune.weights.server import Stream, WeightServer
from perilune.weights.store import VersionStore
from services.trainer.versions.snapshot import PublishedVersion

NUM_KEPT_RUNS = 2  # a run that just ended may still be evaluated while the next one starts


@dataclass(eq=False)
class _Published:
    """A run's newest version, and what else of it is served."""

    versions: VersionStore | None
    adapter: str  # whose stream carries the run's versions; empty: the model's own
    newest: PublishedVersion | None = None
    is_held: bool = False  # an older version is served on purpose


class Publisher(WeightServer):
    """Serves WeightService from the trainer. All methods belong to the event loop's thread."""

    def __init__(self, rank: int = 0, audit: Audit | None = None) -> None:
        """`rank`: of a trainer of several ranks, whose part is served here."""
        super().__init__()
        self._rank = rank
        self._audit = audit or Audit()
        self._published: dict[str, _Published] = {}

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return super()._handlers() | {
            "ListVersions": grpc.unary_unary_rpc_method_handler(
                self._list_versions,
                request_deserializer=weights_pb2.ListVersionsRequest.FromString,
                response_serializer=weights_pb2.ListVersionsResponse.SerializeToString,
            ),
            "PinVersion": grpc.unary_unary_rpc_method_handler(
                self._pin_version,
                request_deserializer=weights_pb2.PinVersionRequest.FromString,
                response_serializer=weights_pb2.PinVersionResponse.SerializeToString,
            ),
            "ServeVersion": grpc.unary_unary_rpc_method_handler(
                self._serve_version,
                request_deserializer=weights_pb2.ServeVersionRequest.FromString,
                response_serializer=weights_pb2.ServeVersionResponse.SerializeToString,
            ),
        }

    def open(self, run_id: str, versions: VersionStore | None = None, adapter: str = "") -> None:
        """From now on subscribers of the run wait for its next version, instead of hearing that there is none.

        A version of before is forgotten: the run may go on from an older one.

        Args:
            run_id: of the run.
            versions: those on disk, to go back to.
            adapter: the name of what is trained, where the model itself stays: its versions are the run's.
        """
        self._published.pop(run_id, None)
        self._published[run_id] = _Published(versions, adapter)
        ended = [run_id, *list(self._published)[:-NUM_KEPT_RUNS]]
        closing = [self._streams.pop(key) for key in list(self._streams) if key[0] in ended]
        for other in ended[1:]:
            del self._published[other]
        for name in {"", adapter}:
            self._streams[run_id, name, self._rank] = Stream(leads=True)
        for stream in closing:
            stream.close()

    def publish(self, run_id: str, version: PublishedVersion) -> None:
        """Makes a version the newest of its run, and wakes its subscribers, unless they are held at an older one."""
        published = self._published[run_id]
        published.newest = version
        if not published.is_held:
            self._versions_stream(run_id).publish(version.state, version.delta, version.model_files)

    def measured(self, run_id: str) -> Measured:
        """Returns how fast a run's versions go to its subscribers."""
        return self._versions_stream(run_id).measured

    def publish_base(self, run_id: str, base: PublishedVersion) -> None:
        """Serves the model that a run's adapter changes."""
        self.stream_of(run_id).publish(base.state, None, base.model_files)

    async def serve_version(self, run_id: str, number: int | None) -> PolicyVersion:
        """Has the fleet serve a version that is kept, and holds back newer ones; None: the newest again.

        Raises:
            NotFoundError: no such run, or no such version is kept.
            StateError: nothing was published yet.
            WeightStreamError: the version's file is damaged.
        """
        stream, published = self._versions_stream(run_id), self._published[run_id]
        if published.newest is None:
            raise StateError(f"{run_id} has published nothing yet; ask again when it runs")
        state = published.newest.state
        if number is not None and number != state.version.number:
            state = await asyncio.to_thread(self._versions_of(run_id).load, number)
        published.is_held = number is not None
        if number is None:
            state = published.newest.state  # it may have become another one
        if stream.version != state.version:
            stream.publish(state, None, published.newest.model_files)
        return state.version

    def _versions_stream(self, run_id: str) -> Stream:
        """The stream of a run's versions. NotFoundError if no such run is served here."""
        adapter = self._published[run_id].adapter if run_id in self._published else ""
        return self.stream_of(run_id, adapter, self._rank)

    def _versions_of(self, run_id: str) -> VersionStore:
        versions = self._published[run_id].versions if run_id in self._published else None
        if versions is None:
            raise NotFoundError(
                f"no versions of run {run_id!r} are kept here: a trainer of several ranks keeps checkpoints only; for "
                "another run, ask the master where it is"
            )
        return versions

    async def _list_versions(
        self, request: weights_pb2.ListVersionsRequest, context: grpc.aio.ServicerContext
    ) -> weights_pb2.ListVersionsResponse:
        async with rpc_errors(context):
            kept = await asyncio.to_thread(self._versions_of(request.run_id).versions)
            return weights_pb2.ListVersionsResponse(
                versions=[
                    weights_pb2.KeptVersion(
                        version=each.version, base=each.base, num_bytes=each.num_bytes, pinned=each.is_pinned
                    )
                    for each in kept
                ],
                served=self._versions_stream(request.run_id).version,
                held=self._published[request.run_id].is_held,
            )

    async def _pin_version(
        self, request: weights_pb2.PinVersionRequest, context: grpc.aio.ServicerContext
    ) -> weights_pb2.PinVersionResponse:
        async with rpc_errors(context):
            with self._audit.noted("unpin" if request.unpin else "pin", request.run_id, version=request.number):
                await asyncio.to_thread(self._versions_of(request.run_id).pin, request.number, not request.unpin)
            return weights_pb2.PinVersionResponse()

    async def _serve_version(
        self, request: weights_pb2.ServeVersionRequest, context: grpc.aio.ServicerContext
    ) -> weights_pb2.ServeVersionResponse:
        async with rpc_errors(context):
            number = request.number if request.HasField("number") else None
            with self._audit.noted("serve", request.run_id, version=number):
                return weights_pb2.ServeVersionResponse(served=await self.serve_version(request.run_id, number))
