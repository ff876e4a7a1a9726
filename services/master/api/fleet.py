"""FleetService: who is in the fleet, and which runs they are to serve."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.master.v1.master_pb2_grpc import FleetServiceServicer
from perilune.errors import InvalidInputError, NotFoundError
from perilune.runtime.auth import caller
from perilune.runtime.service import rpc_errors
from services.master.registry import ActiveRun, Registry
from services.master.weight_tree import Node, joined, left, sources

MAX_NAME_CHARS = 256  # of a worker's id, kind and address, which the master keeps and shows


def check_names(*names: str) -> None:
    """InvalidInputError if a worker's name of any kind is no name."""
    for name in names:
        if len(name) > MAX_NAME_CHARS:
            raise InvalidInputError(f"{name[:20]}… is {len(name)} characters; an id or an address has {MAX_NAME_CHARS}")


class FleetService(FleetServiceServicer):
    """FleetService of the contract, whose comments say what each call does and raises."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._workers: dict[str, m.Worker] = {}
        self._nodes: list[Node] = []  # of the tree in which weight versions travel

    def workers(self) -> list[m.Worker]:
        """The workers that are in the fleet now."""
        trainers = [
            m.Worker(
                id=run.lease.trainer_id,
                kind="trainer",
                address=run.lease.weights_address,
                run_id=run.id,
                policy=run.policy,
            )
            for run in self._registry.served()
            if run.lease
        ]
        return self._registry.liveness.described([*trainers, *self._workers.values()])

    async def Heartbeat(self, request: m.HeartbeatRequest, context: grpc.aio.ServicerContext) -> m.HeartbeatResponse:
        """Notes that a worker is alive."""
        async with rpc_errors(context):
            caller().check_kind(request.kind)
            self._registry.liveness.hear(request)
            return m.HeartbeatResponse()

    async def Join(self, request: m.JoinRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[m.JoinResponse]:
        """Takes a worker into the fleet for as long as the call lasts. INVALID_ARGUMENT if a name cannot be used."""
        async with rpc_errors(context):
            check_names(request.worker_id, request.kind, request.address)
            caller().check_kind(request.kind)
        worker = m.Worker(id=request.worker_id, kind=request.kind, address=request.address)
        self._workers[request.worker_id] = worker
        if request.kind == "rollout":
            self._registry.rollout_workers.add(request.worker_id)
        if request.serves_weights:
            node = Node(request.worker_id, request.address, is_relay=request.kind == "relay")
            self._nodes = joined(self._nodes, node)
            self._registry.fleet_changed.notify()
        try:
            with self._registry.liveness.belonging(request.worker_id):
                sent = None
                while True:
                    seen = self._registry.fleet_changed.count
                    runs = [self._assignment(run, request.worker_id) for run in self._registry.served()]
                    answer = m.JoinResponse(runs=runs)
                    if answer != sent:
                        yield answer
                        sent = answer
                    await self._registry.fleet_changed.wait(seen)
        finally:
            if self._workers.get(request.worker_id) is worker:  # it may have joined again already
                del self._workers[request.worker_id]
                self._registry.rollout_workers.discard(request.worker_id)
                self._nodes = left(self._nodes, request.worker_id)
                self._registry.fleet_changed.notify()

    def _assignment(self, run: ActiveRun, worker_id: str) -> m.RunAssignment:
        nearest, *fallbacks = sources(self._nodes, worker_id, run.weights_address)
        return m.RunAssignment(
            run_id=run.id,
            recipe_json=run.recipe.model_dump_json(),
            weights_address=nearest,
            weights_fallbacks=fallbacks,
            policy=run.policy,
            rank_addresses=run.rank_addresses,
        )

    async def ReportServing(
        self, request: m.ReportServingRequest, context: grpc.aio.ServicerContext
    ) -> m.ReportServingResponse:
        """Notes the version that a worker serves. NOT_FOUND if it has not joined."""
        async with rpc_errors(context):
            if request.worker_id not in self._workers:
                raise NotFoundError(f"{request.worker_id} has not joined the fleet")
            worker = self._workers[request.worker_id]
            worker.run_id = request.run_id
            worker.policy.CopyFrom(request.policy)
            worker.weights_from = request.weights_from
            self._registry.notify(request.run_id)
            return m.ReportServingResponse()
