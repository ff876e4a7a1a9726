"""A run led through faults: each is inflicted, and the system has to recover from it before the next."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from perilune.api.master.v1.master_pb2 import Run, RunState, Worker
from perilune.chaos.audit import Audit, audit
from perilune.chaos.deployment import Deployment
from perilune.chaos.kinds import KINDS
from perilune.chaos.plan import Fault
from perilune.client import AsyncRunClient
from perilune.errors import PeriluneError
from perilune.recipe import Recipe

LOOK_EVERY_S = 0.2
ANSWER_S = 5.0
HUNG_S = 120.0  # without any progress, and with no fault there
MEMBERS = ("trainer", "rollout", "reward")  # kinds of services that the master lists
STARTED_S = 300.0  # a first model may be made, warmed up, compiled
ENDED = (RunState.RUN_STATE_FINISHED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_STOPPED)
T = TypeVar("T")


@dataclass
class Inflicted:
    """A fault, and what came of it. Times are seconds since it began, or since it ended."""

    fault: Fault
    run_id: str
    version: int  # when it began
    recovered_s: float | None = None  # after its end: every service is well and the run has moved; None: hung
    named_s: float | None = None  # after its beginning: the master named what was silent or stuck
    was_ended: bool = False  # the run ended with it: there was nothing to recover


@dataclass
class RunOutcome:
    """A run that was led through faults, when it has ended."""

    run_id: str
    state: str
    reason: str
    seconds: float
    audit: Audit


@dataclass
class Outcome:
    """A whole campaign."""

    inflicted: list[Inflicted] = field(default_factory=list)
    runs: list[RunOutcome] = field(default_factory=list)

    @property
    def num_hung(self) -> int:
        """Faults after which nothing moved any more, and runs that did not finish."""
        faults = sum(each.recovered_s is None for each in self.inflicted)
        return faults + sum(run.state != "finished" for run in self.runs)

    @property
    def is_well(self) -> bool:
        """Tests whether nothing was lost, counted twice, too old, or hung."""
        return self.num_hung == 0 and all(run.audit.is_well for run in self.runs)


@dataclass(frozen=True)
class Look:
    """Describes a run and its fleet at one moment."""

    run: Run
    workers: Sequence[Worker]

    @property
    def moved(self) -> tuple[object, ...]:
        """Differs after every sample, step and version, and whenever the run changes its state."""
        ledger, run = self.run.ledger, self.run
        stages = [(stage.index, stage.step) for stage in run.stages]
        scored = ledger.evaluation_scored, ledger.dispatched, ledger.trained, ledger.in_flight
        return run.state, run.policy.number, scored, stages

    @property
    def has_ended(self) -> bool:
        """Tests whether the run needs no service any more."""
        return self.run.state in ENDED

    def is_whole(self, kinds: Counter[str]) -> bool:
        """Tests whether as many services of each kind are in the fleet, and none in trouble."""
        return kinds <= Counter(worker.kind for worker in self.workers) and not any(w.trouble for w in self.workers)


class Campaign:
    """Faults on a deployment, and runs to go through them."""

    def __init__(
        self, deployment: Deployment, client: AsyncRunClient, say: Callable[[str], None], hung_s: float = HUNG_S
    ) -> None:
        """`say`: called with a line for a reader after each fault and run."""
        self._deployment, self._client, self._say, self._hung_s = deployment, client, say, hung_s
        kinds = [service.partition("-")[0] for service in deployment.services]
        self._kinds = Counter(kind for kind in kinds if kind in MEMBERS)

    async def lead(self, recipe: Recipe, name: str, faults: Sequence[Fault]) -> Outcome:
        """Runs the recipe until every fault was inflicted; again, as another run, where one ends before."""
        outcome, left = Outcome(), deque(faults)
        while left or not outcome.runs:
            run_id = f"{name}-{len(outcome.runs) + 1}" if outcome.runs else name
            await self._patiently(lambda run_id=run_id: self._client.submit(recipe, run_id))  # type: ignore[misc]
            is_hung = not await self._through(run_id, left, outcome)
            outcome.runs.append(await self._ended(run_id, recipe, 0.0 if is_hung else self._hung_s))
            if is_hung or outcome.runs[-1].state != "finished":
                break
        return outcome

    async def _through(self, run_id: str, left: deque[Fault], outcome: Outcome) -> bool:
        """Inflicts what is left until the run ends; false if it did not recover from one."""
        look = await self._until(run_id, lambda look: look.run.ledger.dispatched > 0 or look.has_ended, STARTED_S)
        while left and look is not None and not look.has_ended:
            fault = left.popleft()
            await asyncio.sleep(fault.pause_s)
            inflicted = await self._inflict(run_id, look, fault)
            outcome.inflicted.append(inflicted)
            self._say(_sentence(inflicted))
            if inflicted.recovered_s is None:
                return False
            look = await self._look(run_id)
        return True

    async def _inflict(self, run_id: str, look: Look, fault: Fault) -> Inflicted:
        inflicted = Inflicted(fault, run_id, look.run.policy.number)
        began = time.monotonic()
        naming = asyncio.create_task(self._named(run_id))
        async with KINDS[fault.kind].inflict(self._deployment, fault.target, fault.number, run_id):
            await asyncio.sleep(fault.duration_s)
        ended, before = time.monotonic(), await self._look(run_id)
        moved_from = (before or look).moved

        def is_over(look: Look) -> bool:
            return look.has_ended or (look.moved != moved_from and look.is_whole(self._kinds))

        after = await self._until(run_id, is_over, self._hung_s)
        if after is not None:
            inflicted.recovered_s, inflicted.was_ended = time.monotonic() - ended, after.has_ended
        naming.cancel()
        named_at = (await asyncio.gather(naming, return_exceptions=True))[0]
        inflicted.named_s = named_at - began if isinstance(named_at, float) else None
        return inflicted

    async def _named(self, run_id: str) -> float:
        """Waits until the master names a service as silent or stuck; returns when."""
        while True:
            look = await self._look(run_id)
            if look and any(worker.trouble for worker in look.workers):
                return time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _ended(self, run_id: str, recipe: Recipe, patience_s: float) -> RunOutcome:
        """Waits for a run's end, and checks its ledger."""
        look = await self._until_still(run_id, patience_s)
        versions = await self._patiently(lambda: self._client.versions(run_id))
        ledger = await self._patiently(lambda: self._client.ledger(run_id))
        lines = await self._patiently(lambda: self._client.ledger_lines(run_id))
        rollout = recipe.rollout
        found = audit(lines, versions, ledger, rollout.max_staleness, rollout.prompts_per_iteration)
        state = RunState.Name(look.run.state).removeprefix("RUN_STATE_").lower()
        return RunOutcome(run_id, state, look.run.reason, look.run.seconds, found)

    async def _until_still(self, run_id: str, patience_s: float) -> Look:
        """Waits until the run has ended, or has not moved for so long."""
        look = await self._patiently(lambda: self._ask(run_id))
        since = time.monotonic()
        while not look.has_ended and time.monotonic() - since < patience_s:
            await asyncio.sleep(LOOK_EVERY_S)
            now = await self._look(run_id)
            if now and now.moved != look.moved:
                look, since = now, time.monotonic()
        return look

    async def _until(self, run_id: str, condition: Callable[[Look], bool], patience_s: float) -> Look | None:
        """Looks until a condition holds; None if it never did."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            look = await self._look(run_id)
            if look and condition(look):
                return look
            await asyncio.sleep(LOOK_EVERY_S)
        return None

    async def _look(self, run_id: str) -> Look | None:
        """The run and its fleet now; None while the master does not answer."""
        try:
            return await self._ask(run_id)
        except (PeriluneError, TimeoutError):
            return None

    async def _ask(self, run_id: str) -> Look:
        async with asyncio.timeout(ANSWER_S):
            return Look(await self._client.get(run_id), (await self._client.fleet()).workers)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks until there is an answer; the last error if there was none for as long as a run may stand still."""
        deadline = time.monotonic() + self._hung_s
        while True:
            try:
                return await ask()
            except (PeriluneError, TimeoutError):
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(1.0)


def _sentence(inflicted: Inflicted) -> str:
    fault = inflicted.fault
    if inflicted.recovered_s is None:
        came = "NOT RECOVERED"
    elif inflicted.was_ended:
        came = "the run has ended"
    else:
        came = f"recovered after {inflicted.recovered_s:.1f} s"
    named = f", named after {inflicted.named_s:.0f} s" if inflicted.named_s is not None else ""
    return f"{fault.number}: {fault} at version {inflicted.version}: {came}{named}"
