"""FleetService: who is in the fleet, and which runs they are to serve."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.master.v1.master_pb2_grpc import FleetServiceServicer
from perilune.errors import NotFoundError
from perilune.service import rpc_errors
from services.master.registry import Registry


class FleetService(FleetServiceServicer):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._workers: dict[str, m.Worker] = {}

    def workers(self) -> list[m.Worker]:
        trainers = [
            m.Worker(id=run.lease.trainer_id, kind="trainer", address=run.lease.weights_address, run_id=run.id)
            for run in self._registry.served()
            if run.lease
        ]
        return trainers + list(self._workers.values())

    async def Join(self, request: m.JoinRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[m.JoinResponse]:
        worker = m.Worker(id=request.worker_id, kind=request.kind, address=request.address)
        self._workers[request.worker_id] = worker
        try:
            sent = None
            while True:
                seen = self._registry.fleet_changed.count
                answer = m.JoinResponse(
                    runs=[
                        m.RunAssignment(
                            run_id=run.id, recipe_json=run.recipe.model_dump_json(), weights_address=run.weights_address
                        )
                        for run in self._registry.served()
                    ]
                )
                if answer != sent:
                    yield answer
                    sent = answer
                await self._registry.fleet_changed.wait(seen)
        finally:
            if self._workers.get(request.worker_id) is worker:  # it may have joined again already
                del self._workers[request.worker_id]

    async def ReportServing(
        self, request: m.ReportServingRequest, context: grpc.aio.ServicerContext
    ) -> m.ReportServingResponse:
        async with rpc_errors(context):
            if request.worker_id not in self._workers:
                raise NotFoundError(f"{request.worker_id} has not joined the fleet")
            worker = self._workers[request.worker_id]
            worker.run_id = request.run_id
            worker.policy.CopyFrom(request.policy)
            self._registry.notify(request.run_id)
            return m.ReportServingResponse()
