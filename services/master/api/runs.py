"""RunService: for people and programs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.master.v1.master_pb2_grpc import RunServiceServicer
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion, ScoredTrajectory
from perilune.codec import num_elements
from perilune.errors import StateError
from perilune.recipe import read_stored_recipe, recipe_from_json
from perilune.service import rpc_errors
from perilune.stats import wilson_interval
from services.master.api.fleet import FleetService
from services.master.registry import Registry
from services.master.store import ENDED, Store
from services.master.tables import EvaluationRow

WATCH_INTERVAL_S = 0.5  # a snapshot asks the database several questions


class RunService(RunServiceServicer):
    """Answers from the database; without a registry (a read-only master) it changes nothing."""

    def __init__(self, store: Store, registry: Registry | None, fleet: FleetService | None) -> None:
        self._store, self._registry, self._fleet = store, registry, fleet

    async def SubmitRun(self, request: m.SubmitRunRequest, context: grpc.aio.ServicerContext) -> m.SubmitRunResponse:
        async with rpc_errors(context):
            run_id = await self._writable.submit(request.run_id, recipe_from_json(request.recipe_json))
            return m.SubmitRunResponse(run=await self._describe(run_id))

    async def GetRun(self, request: m.GetRunRequest, context: grpc.aio.ServicerContext) -> m.GetRunResponse:
        async with rpc_errors(context):
            run = await self._describe(request.run_id)
            versions = await self._store.versions(request.run_id) if request.with_versions else []
            return m.GetRunResponse(run=run, versions=versions)

    async def ListRuns(self, request: m.ListRunsRequest, context: grpc.aio.ServicerContext) -> m.ListRunsResponse:
        async with rpc_errors(context):
            return m.ListRunsResponse(runs=[await self._describe(row.id) for row in await self._store.runs()])

    async def WatchRun(
        self, request: m.WatchRunRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[m.WatchRunResponse]:
        newest, num_events = -1, 0
        async with rpc_errors(context):
            registry = self._writable
            while True:
                seen = registry.num_news(request.run_id)
                run = await self._describe(request.run_id)
                versions = await self._store.versions(request.run_id, after=newest)
                answer = m.WatchRunResponse(run=run, versions=versions)
                newest = versions[-1].policy.number if versions else newest
                active = registry.find(request.run_id)
                if active:
                    new = min(active.num_events - num_events, len(active.events))
                    answer.events.extend(list(active.events)[len(active.events) - new :])
                    num_events = active.num_events
                if self._fleet:
                    answer.fleet.extend(self._fleet.workers())
                yield answer
                if run.state in ENDED:
                    return
                await registry.wait_for_news(request.run_id, seen, WATCH_INTERVAL_S)

    async def StopRun(self, request: m.StopRunRequest, context: grpc.aio.ServicerContext) -> m.StopRunResponse:
        async with rpc_errors(context):
            await self._writable.stop(request.run_id)
            return m.StopRunResponse(run=await self._describe(request.run_id))

    async def ResumeRun(self, request: m.ResumeRunRequest, context: grpc.aio.ServicerContext) -> m.ResumeRunResponse:
        async with rpc_errors(context):
            await self._writable.resume(request.run_id)
            return m.ResumeRunResponse(run=await self._describe(request.run_id))

    async def GetLedger(self, request: m.GetLedgerRequest, context: grpc.aio.ServicerContext) -> m.GetLedgerResponse:
        async with rpc_errors(context):
            await self._store.run(request.run_id)
            return m.GetLedgerResponse(ledger=await self._store.ledger(request.run_id))

    async def ListSamples(
        self, request: m.ListSamplesRequest, context: grpc.aio.ServicerContext
    ) -> m.ListSamplesResponse:
        async with rpc_errors(context):
            await self._store.run(request.run_id)
            payloads, num_samples = await self._store.samples(
                request.run_id, request.iteration, request.purpose, request.mode, request.limit or 20, request.offset
            )
            samples = list(map(ScoredTrajectory.FromString, payloads))
            if request.text_only:
                for sample in samples:
                    leave_out_tokens(sample)
            return m.ListSamplesResponse(samples=samples, num_samples=num_samples)

    async def GetFleet(self, request: m.GetFleetRequest, context: grpc.aio.ServicerContext) -> m.GetFleetResponse:
        async with rpc_errors(context):
            backlogs, num_dead_letters = await self._writable.backlogs()
            queues = [
                m.Queue(name=backlog.consumer, num_waiting=backlog.num_waiting, num_in_hand=backlog.num_in_hand)
                for backlog in backlogs
            ]
            workers = self._fleet.workers() if self._fleet else []
            return m.GetFleetResponse(workers=workers, queues=queues, num_dead_letters=num_dead_letters)

    @property
    def _writable(self) -> Registry:
        if self._registry is None:
            raise StateError("this master only reads; start one with `perilune serve master` or `perilune train`")
        return self._registry

    async def _describe(self, run_id: str) -> m.Run:
        row = await self._store.run(run_id)
        recipe = read_stored_recipe(row.recipe)
        policy = await self._store.newest_version(run_id)
        unwritten_seconds = self._registry.active_seconds(run_id) if self._registry else 0.0
        return m.Run(
            id=row.id,
            state=row.state,  # type: ignore[arg-type]
            reason=row.reason,
            recipe_json=row.recipe,
            iteration=policy.number if policy else 0,
            num_iterations=recipe.trainer.num_iterations,
            policy=policy,
            evaluations=[_evaluation(e) for e in await self._store.evaluations(run_id)],
            ledger=await self._store.ledger(run_id),
            submitted_unix_ns=row.submitted_ns,
            seconds=row.active_seconds + unwritten_seconds,
            model_path=row.model_path,
        )


def leave_out_tokens(sample: ScoredTrajectory) -> None:
    """Leaves what a reader reads; the segments say how many tokens they had."""
    sample.trajectory.ClearField("prompt_tokens")
    for segment in sample.trajectory.segments:
        segment.num_tokens = num_elements(segment.tokens)
        for name in ("tokens", "logprobs", "full_logprobs"):
            segment.ClearField(name)


def _evaluation(row: EvaluationRow) -> m.Evaluation:
    low, high = wilson_interval(row.num_correct, row.num_problems)
    return m.Evaluation(
        policy=PolicyVersion(number=row.version, digest=row.digest),
        mode=row.mode,
        num_problems=row.num_problems,
        num_correct=row.num_correct,
        accuracy=row.num_correct / row.num_problems,
        low=low,
        high=high,
        mean_tokens=row.mean_tokens,
    )
