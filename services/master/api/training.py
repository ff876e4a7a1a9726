"""TrainingService: leases, batches and commits, for the trainer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.master.v1.master_pb2_grpc import TrainingServiceServicer
from perilune.api.trajectory.v1.trajectory_pb2 import ScoredTrajectory
from perilune.errors import StateError
from perilune.runtime.service import rpc_errors
from services.master.api.fleet import check_names
from services.master.budgets import budgets_of_batch
from services.master.intake import parts_by_size
from services.master.registry import STOP_PATIENCE_S, Registry
from services.master.store import Store

PART_BYTES = 1 << 20  # of a batch, in one message
GROUP_PART_BYTES = 32 << 20  # of one group, in one message


class TrainingService(TrainingServiceServicer):
    """TrainingService of the contract, whose comments say what each call does and raises."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store, self._registry = store, registry

    async def AcquireRun(
        self, request: m.AcquireRunRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[m.AcquireRunResponse]:
        """Leases a run to a trainer for as long as the call lasts. INVALID_ARGUMENT if a name cannot be used."""
        async with rpc_errors(context):
            check_names(request.trainer_id, request.weights_address, *request.rank_addresses)
        addresses = request.weights_address, list(request.rank_addresses)
        with self._registry.liveness.belonging(request.trainer_id):
            async with self._registry.lease(request.trainer_id, *addresses) as (run, lease):
                committed = await self._store.newest_version(run.id)
                recipe_json = run.recipe.model_dump_json()
                versions = [version.policy for version in await self._store.versions(run.id)]
                assignment = m.Assignment(
                    run_id=run.id,
                    recipe_json=recipe_json,
                    committed=committed,
                    versions=versions,
                    lease_epoch=lease.epoch,
                )
                yield m.AcquireRunResponse(assignment=assignment)
                await lease.stop.wait()
                yield m.AcquireRunResponse(stop=m.Stop(reason="the run was stopped"))
                await asyncio.sleep(STOP_PATIENCE_S)  # the trainer closes the stream when it has stopped

    async def GetBatch(
        self, request: m.GetBatchRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[m.GetBatchResponse]:
        """Streams an iteration's scored groups once it is closed. FAILED_PRECONDITION if it is not open yet."""
        async with rpc_errors(context):
            active = await self._registry.leased(request.run_id, request.lease_epoch)
            newest = await self._store.newest_version(request.run_id)
            if newest is None or request.iteration > newest.number:
                raise StateError(f"iteration {request.iteration} of {request.run_id} is not open yet")
            while request.iteration == newest.number and not (
                active.controller and active.controller.num_closed > request.iteration
            ):
                await active.changed.wait(active.changed.count, 5.0)
                await self._registry.leased(request.run_id, request.lease_epoch)  # it may be over meanwhile
            budgets = await budgets_of_batch(self._store, request.run_id, active.recipe, request.iteration)
            answer, num_bytes = m.GetBatchResponse(), 0
            async for group_id, traceparent, payloads in self._store.batch(request.run_id, request.iteration):
                for part in parts_by_size(payloads, len, GROUP_PART_BYTES):
                    samples = map(ScoredTrajectory.FromString, part)
                    answer.groups.add(
                        group_id=group_id, samples=samples, traceparent=traceparent, budget_tokens=budgets.get(group_id)
                    )
                    num_bytes += sum(map(len, part))
                    if num_bytes > PART_BYTES:
                        yield answer
                        answer, num_bytes = m.GetBatchResponse(), 0
            if answer.groups:
                yield answer

    async def CommitVersion(
        self, request: m.CommitVersionRequest, context: grpc.aio.ServicerContext
    ) -> m.CommitVersionResponse:
        """Commits a version. ABORTED if the lease is stale."""
        async with rpc_errors(context):
            refused = {(sample.group_id, sample.sample_index): sample.reason for sample in request.refused}
            finished = await self._registry.commit(
                request.run_id, request.lease_epoch, request.version, request.model_path, refused
            )
            return m.CommitVersionResponse(finished=finished)

    async def FailRun(self, request: m.FailRunRequest, context: grpc.aio.ServicerContext) -> m.FailRunResponse:
        """Ends a run with a reason. ABORTED if the lease is stale."""
        async with rpc_errors(context):
            await self._registry.fail(request.run_id, request.reason, request.lease_epoch)
            return m.FailRunResponse()
