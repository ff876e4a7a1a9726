"""The slots of a service, who waits for them, and how busy they are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence

from services.sandbox.jail.slot import KeeperError, Run, Slot
from services.sandbox.job import BusyError, Isolation, Job, JobOutcome, Verdict

logger = logging.getLogger(__name__)

_SMOOTHING = 0.1  # of the mean time a job holds its slot


class Pool:
    """Runs jobs in slots, first come, first served. The `Jail` that the rest of the service knows."""

    def __init__(
        self,
        isolation: Isolation,
        unavailable: Mapping[str, str],
        slots: Sequence[Slot],
        max_waiting: int,
        resources: contextlib.AsyncExitStack,
    ) -> None:
        self._isolation = isolation
        self.unavailable_levels = unavailable
        self.num_slots = len(slots)
        self._max_waiting = max_waiting
        self._resources = resources
        self._free = list(slots)
        self._waiting: deque[asyncio.Future[Slot]] = deque()
        self._clearing: set[asyncio.Task[None]] = set()
        self._mean_hold_s = 0.1

    @property
    def isolation(self) -> Isolation:
        """The level that all slots run under."""
        return self._isolation

    @property
    def num_busy(self) -> int:
        """The number of slots that run a job."""
        return self.num_slots - len(self._free)

    @property
    def num_waiting(self) -> int:
        """The number of jobs that wait for a slot."""
        return len(self._waiting)

    async def run(self, job: Job) -> JobOutcome:
        """Runs a job to its end. BusyError if it cannot be taken; a failure of the jail itself is its verdict."""
        try:
            async with self._begun(job, live=False) as run:
                return await run.outcome()
        except KeeperError as error:
            return JobOutcome(Verdict.INFRASTRUCTURE_ERROR, str(error))

    @contextlib.asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[LiveJob]:
        """Starts a job and keeps its stdin and stdout open. BusyError if it cannot be taken; KeeperError."""
        async with self._begun(job, live=True) as run:
            yield LiveJob(run)

    async def close(self) -> None:
        """Ends every slot with what runs in it."""
        for waiter in self._waiting:
            waiter.cancel()
        await asyncio.gather(*self._clearing, return_exceptions=True)
        await self._resources.aclose()

    @contextlib.asynccontextmanager
    async def _begun(self, job: Job, live: bool) -> AsyncIterator[Run]:
        slot = await self._take()
        began = time.monotonic()
        run = None
        try:
            run = await slot.begin(job, live)
            yield run
        finally:
            # Cleaning up goes on behind the caller's back, also where the caller has gone.
            task = asyncio.create_task(self._give_back(slot, run, began))
            self._clearing.add(task)
            task.add_done_callback(self._clearing.discard)

    async def _take(self) -> Slot:
        if self._free:
            return self._free.pop()
        if len(self._waiting) >= self._max_waiting:
            raise BusyError(self._mean_hold_s * (1 + len(self._waiting) / self.num_slots))
        waiter: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._pass_on(waiter.result())
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    async def _give_back(self, slot: Slot, run: Run | None, began: float) -> None:
        try:
            if run is not None:
                if not run.is_over:
                    run.stop(Verdict.CANCELLED, "its caller is gone")
                    await run.outcome()
                await slot.clear()
        except KeeperError:
            logger.exception("a slot could not be made ready again; it will be tried with its next job")
        self._mean_hold_s += _SMOOTHING * (time.monotonic() - began - self._mean_hold_s)
        self._pass_on(slot)

    def _pass_on(self, slot: Slot) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return
        self._free.append(slot)


class LiveJob:
    """A running job whose stdin and stdout are a channel."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def send(self, data: bytes) -> None:
        """Writes to its stdin. BrokenPipeError once it has ended."""
        await self._run.send(data)

    async def receive_line(self) -> bytes:
        """The next line of its stdout with its newline; empty once it ended. ValueError beyond the output limit."""
        assert self._run.lines is not None
        return await self._run.lines.next_line()

    async def interrupt(self) -> None:
        """Sends SIGINT to the program itself."""
        self._run.interrupt()

    async def end(self) -> JobOutcome:
        """Kills whatever still runs, and tells what became of it. Once; the slot is free afterwards."""
        self._run.stop(Verdict.OK, "ended on request")
        return await self._run.outcome()
