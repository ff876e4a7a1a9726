"""RolloutService: how busy this worker is."""

from __future__ import annotations

import grpc

from perilune.api.rollout.v1.rollout_pb2 import GetStatusRequest, GetStatusResponse
from perilune.api.rollout.v1.rollout_pb2_grpc import RolloutServiceServicer
from services.rollout.runs import Workers


class RolloutServicer(RolloutServiceServicer):
    """RolloutService, as the proto documents it."""

    def __init__(self, worker_id: str, workers: Workers) -> None:
        self._worker_id = worker_id
        self._workers = workers

    async def GetStatus(
        self, request: GetStatusRequest, context: grpc.aio.ServicerContext[GetStatusRequest, GetStatusResponse]
    ) -> GetStatusResponse:
        """Says how busy each run's engine is."""
        return GetStatusResponse(worker_id=self._worker_id, runs=[worker.status() for worker in self._workers.all()])
