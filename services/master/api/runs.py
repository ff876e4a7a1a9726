"""RunService: for people and programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.master.v1.master_pb2_grpc import RunServiceServicer
from perilune.api.trajectory.v1.trajectory_pb2 import ScoredTrajectory
from perilune.codec import num_elements
from perilune.errors import StateError, UnavailableError
from perilune.recipe import Recipe, recipe_from_json
from perilune.runtime.audit import Audit
from perilune.runtime.auth import caller
from perilune.runtime.service import rpc_errors
from services.master.api.description import describe
from services.master.api.fleet import FleetService
from services.master.config import MasterSettings
from services.master.dead_letters import DeadLetters
from services.master.folders import check_folders
from services.master.graders import grader_mistakes
from services.master.registry import Registry
from services.master.store import ENDED, MAX_INTEGER, Store
from services.master.tables import RunRow

WATCH_INTERVAL_S = 0.5  # a snapshot asks the database several questions
MAX_LISTED = 1000  # runs in one list, the newest
MAX_SAMPLES = 500  # in one list


async def _always() -> bool:
    return True


class RunService(RunServiceServicer):
    """Answers from the database; without a registry (a read-only master) it changes nothing."""

    def __init__(
        self,
        store: Store,
        registry: Registry | None,
        fleet: FleetService | None,
        is_driven: Callable[[], Awaitable[bool]] = _always,
        settings: MasterSettings | None = None,
    ) -> None:
        """`is_driven`: whether another master works on the database, asked where this one has no registry; `settings`
        say which files recipes may name, and where the audit log lies."""
        self._store, self._registry, self._fleet, self._is_driven = store, registry, fleet, is_driven
        self._files = settings
        self._audit = Audit(settings.home if settings else None)

    async def SubmitRun(self, request: m.SubmitRunRequest, context: grpc.aio.ServicerContext) -> m.SubmitRunResponse:
        """Starts a run. INVALID_ARGUMENT if its recipe is wrong."""
        async with rpc_errors(context):
            registry, recipe = self._writable, recipe_from_json(request.recipe_json)
            with self._audit.noted("submit", request.run_id, recipe=recipe.name):
                await self._check_files(recipe)
                mistakes = await grader_mistakes(recipe, self._fleet.workers() if self._fleet else ())
                run_id = await registry.submit(request.run_id, recipe, mistakes)
            return m.SubmitRunResponse(run=await self._describe(run_id))

    async def _check_files(self, recipe: Recipe) -> None:
        """InvalidInputError if the caller may not name a file that the recipe names."""
        if self._files and (self._files.data_folders or "admin" not in caller().roles):
            await asyncio.to_thread(check_folders, recipe, self._files.data_folders, self._files.home, Path.cwd())

    async def GetRun(self, request: m.GetRunRequest, context: grpc.aio.ServicerContext) -> m.GetRunResponse:
        """Describes a run, on request with its versions. NOT_FOUND."""
        async with rpc_errors(context):
            run = await self._describe(request.run_id)
            if not request.with_versions:
                return m.GetRunResponse(run=run)
            versions, steps = (
                await self._store.versions(request.run_id),
                await self._store.stage_steps(request.run_id),
            )
            return m.GetRunResponse(run=run, versions=versions, stage_steps=steps)

    async def ListRuns(self, request: m.ListRunsRequest, context: grpc.aio.ServicerContext) -> m.ListRunsResponse:
        """Lists at most MAX_LISTED runs."""
        async with rpc_errors(context):
            rows = (await self._store.runs())[:MAX_LISTED]
            return m.ListRunsResponse(runs=[await self._description_of(row) for row in rows])

    async def WatchRun(
        self, request: m.WatchRunRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[m.WatchRunResponse]:
        """Streams a run's state and new versions whenever they change. NOT_FOUND."""
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
        """Stops a run. NOT_FOUND; FAILED_PRECONDITION if it has ended."""
        async with rpc_errors(context):
            with self._audit.noted("stop", request.run_id, failure=request.failure[:200]):
                await self._writable.stop(request.run_id, request.failure)
            return m.StopRunResponse(run=await self._describe(request.run_id))

    async def ResumeRun(self, request: m.ResumeRunRequest, context: grpc.aio.ServicerContext) -> m.ResumeRunResponse:
        """Resumes a run, on request with more iterations. NOT_FOUND; FAILED_PRECONDITION if it cannot be."""
        async with rpc_errors(context):
            with self._audit.noted("resume", request.run_id, num_iterations=request.num_iterations):
                await self._writable.resume(request.run_id, request.num_iterations)
            return m.ResumeRunResponse(run=await self._describe(request.run_id))

    async def GetLedger(self, request: m.GetLedgerRequest, context: grpc.aio.ServicerContext) -> m.GetLedgerResponse:
        """Counts a run's samples by their state. NOT_FOUND."""
        async with rpc_errors(context):
            await self._store.run(request.run_id)
            return m.GetLedgerResponse(ledger=await self._store.ledger(request.run_id))

    async def ListLedgerLines(
        self, request: m.ListLedgerLinesRequest, context: grpc.aio.ServicerContext
    ) -> m.ListLedgerLinesResponse:
        """Lists what became of each sample of the next groups. NOT_FOUND."""
        async with rpc_errors(context):
            await self._store.run(request.run_id)
            lines = await self._store.ledger_lines(request.run_id, request.after_group)
            return m.ListLedgerLinesResponse(lines=lines)

    async def ListSamples(
        self, request: m.ListSamplesRequest, context: grpc.aio.ServicerContext
    ) -> m.ListSamplesResponse:
        """Lists at most MAX_SAMPLES samples of an iteration. NOT_FOUND."""
        async with rpc_errors(context):
            await self._store.run(request.run_id)
            iteration, limit = min(request.iteration, MAX_INTEGER), min(request.limit or 20, MAX_SAMPLES)
            payloads, num_samples = await self._store.samples(
                request.run_id, iteration, request.purpose, request.mode, limit, request.offset
            )
            samples = list(map(ScoredTrajectory.FromString, payloads))
            if request.text_only:
                for sample in samples:
                    leave_out_tokens(sample)
            return m.ListSamplesResponse(samples=samples, num_samples=num_samples)

    async def ListDeadLetters(
        self, request: m.ListDeadLettersRequest, context: grpc.aio.ServicerContext
    ) -> m.ListDeadLettersResponse:
        """Lists messages that were given up. UNAVAILABLE if the bus is away."""
        async with rpc_errors(context):
            letters, last = await self._letters.page(
                request.after_number, request.limit, request.run_id, with_payloads=request.with_payloads
            )
            return m.ListDeadLettersResponse(letters=letters, last_number=last)

    async def RetryDeadLetter(
        self, request: m.RetryDeadLetterRequest, context: grpc.aio.ServicerContext
    ) -> m.RetryDeadLetterResponse:
        """Gives one another try. NOT_FOUND; FAILED_PRECONDITION if its time is over; UNAVAILABLE."""
        async with rpc_errors(context):
            with self._audit.noted("retry dead letter", "", number=request.number):
                return m.RetryDeadLetterResponse(num_samples=await self._letters.retry(request.number))

    async def DropDeadLetters(
        self, request: m.DropDeadLettersRequest, context: grpc.aio.ServicerContext
    ) -> m.DropDeadLettersResponse:
        """Forgets some. UNAVAILABLE."""
        async with rpc_errors(context):
            with self._audit.noted("drop dead letters", "", numbers=list(request.numbers)[:100]):
                return m.DropDeadLettersResponse(num_dropped=await self._letters.drop(request.numbers))

    async def GetFleet(self, request: m.GetFleetRequest, context: grpc.aio.ServicerContext) -> m.GetFleetResponse:
        """Lists the workers, and the queues unless the bus is away."""
        async with rpc_errors(context):
            registry = self._writable
            fleet = m.GetFleetResponse(workers=self._fleet.workers() if self._fleet else [])
            try:
                backlogs, fleet.num_dead_letters = await registry.backlogs()
            except UnavailableError as error:  # the workers are known all the same
                fleet.problem = str(error)
                return fleet
            for backlog in backlogs:
                fleet.queues.add(
                    name=backlog.consumer, num_waiting=backlog.num_waiting, num_in_hand=backlog.num_in_hand
                )
            return fleet

    @property
    def _letters(self) -> DeadLetters:
        registry = self._writable
        return DeadLetters(registry.bus, self._store, registry)

    @property
    def _writable(self) -> Registry:
        if self._registry is None:
            raise StateError("this master only reads; start one with `perilune serve master` or `perilune train`")
        return self._registry

    async def _describe(self, run_id: str) -> m.Run:
        return await self._description_of(await self._store.run(run_id))

    async def _description_of(self, row: RunRow) -> m.Run:
        if self._registry:
            return await describe(self._store, row, self._registry.active_seconds(row.id))
        return await describe(self._store, row, is_driven=await self._is_driven())


def leave_out_tokens(sample: ScoredTrajectory) -> None:
    """Leaves what a reader reads; the segments say how many tokens they had."""
    sample.trajectory.ClearField("prompt_tokens")
    for segment in sample.trajectory.segments:
        segment.num_tokens = num_elements(segment.tokens)
        for name in ("tokens", "logprobs", "full_logprobs", "teacher_logprobs", "teacher_kl"):
            segment.ClearField(name)
