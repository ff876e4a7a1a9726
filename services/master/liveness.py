"""Says which services are silent, or stuck, and since when: heartbeats in, changes out.

`trouble` decides, of values; `Liveness` remembers what was heard; `watch_fleet` looks again and again and tells log,
events, page and metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass

from opentelemetry.metrics import CallbackOptions, Observation

from perilune.api.master.v1.master_pb2 import HeartbeatRequest, Worker
from perilune.errors import InvalidInputError
from perilune.runtime.telemetry import meter

logger = logging.getLogger(__name__)

SILENT_S = 12.0  # four heartbeats
STUCK_S = 20.0  # without progress, and without using the processor
SPINNING_S = 300.0  # without progress, while using it: at least so long, and three times the longest step before
IDLE_SHARE = 0.1  # of one core: what a service uses that only answers
FORGOTTEN_S = 300.0  # one that was in trouble when it left is remembered for so long
LOOK_EVERY_S = 2.0
MAX_SERVICES, MAX_TEXT = 10_000, 200  # whatever heartbeats say


BUS = "nats"  # it sends no heartbeats: the master asks it
NEVER = math.inf  # one that never said that it lives is not missed


@dataclass(frozen=True)
class Trouble:
    """Describes what is wrong with a service, as the middle of a sentence, and since when."""

    what: str
    since: float

    def __str__(self) -> str:
        return f"{self.what} since {time.strftime('%H:%M:%S', time.localtime(unix_time(self.since)))}"


@dataclass
class Pulse:
    """Describes what was heard of one service. Times are seconds of one monotonic clock."""

    worker: Worker
    heard_at: float = NEVER
    moved_at: float = NEVER  # when its progress was last seen to differ, or when it began what it does
    doing: str = ""
    progress: int = 0
    cpu_s: float = 0.0
    cpu_s_when_moved: float = 0.0
    longest_step_s: float = 0.0
    num_streams: int = 0  # by which it belongs to the fleet
    reporter_id: str = ""  # the service that says it on this one's behalf, where this one knows no master
    trouble: Trouble | None = None  # as it was last reported

    def hear(self, heartbeat: HeartbeatRequest, now: float) -> None:
        """Takes in a heartbeat."""
        if not heartbeat.doing or (heartbeat.doing, heartbeat.progress) != (self.doing, self.progress):
            if self.doing and heartbeat.doing == self.doing:
                self.longest_step_s = max(self.longest_step_s, now - self.moved_at)
            self.moved_at, self.cpu_s_when_moved = now, heartbeat.cpu_seconds
        self.heard_at, self.reporter_id = now, heartbeat.reporter_id
        self.doing, self.progress, self.cpu_s = heartbeat.doing, heartbeat.progress, heartbeat.cpu_seconds
        self.worker = Worker(
            id=heartbeat.worker_id,
            kind=heartbeat.kind,
            address=heartbeat.address,
            host=heartbeat.host,
            pid=heartbeat.pid,
            run_id=heartbeat.run_id,
        )


def trouble(pulse: Pulse, now: float) -> Trouble | None:
    """Returns what is wrong with a service, if anything is."""
    if now - pulse.heard_at > SILENT_S:
        return Trouble("has been silent", pulse.heard_at)
    still_s = now - pulse.moved_at
    if not pulse.doing or still_s <= STUCK_S:
        return None
    share = (pulse.cpu_s - pulse.cpu_s_when_moved) / max(pulse.heard_at - pulse.moved_at, 1e-9)
    if share < IDLE_SHARE or still_s > max(SPINNING_S, 3 * pulse.longest_step_s):
        return Trouble(f"has made no progress ({pulse.doing})", pulse.moved_at)
    return None


def unix_time(moment: float) -> float:
    """A moment of the monotonic clock as seconds since the Unix epoch."""
    return time.time() - (time.monotonic() - moment)


@dataclass(frozen=True)
class Change:
    """A trouble that began or ended, in words."""

    worker: Worker
    is_well: bool
    text: str


def _began(worker: Worker, found: Trouble) -> Change:
    parts = [f"process {worker.pid} on {worker.host}" if worker.pid else "", worker.address]
    place = ", ".join(filter(None, parts))
    return Change(worker, False, f"{worker.id} {found}{f' ({place})' if place else ''}")


def _ended(worker: Worker, before: Trouble, now: float) -> Change:
    return Change(worker, True, f"{worker.id} is back after {now - before.since:.0f} s; it {before.what}")


class Liveness:
    """Describes what was heard of every service that says that it lives."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pulses: dict[str, Pulse] = {}
        meter.create_observable_gauge(
            "perilune.master.silent", [self._observe], "s", "For how long a service has been silent or stuck; 0: well."
        )

    def hear(self, heartbeat: HeartbeatRequest) -> None:
        """Takes in a heartbeat of a service. InvalidInputError if it does not say whose it is."""
        if not 0 < len(heartbeat.worker_id) <= MAX_TEXT:
            raise InvalidInputError(f"a heartbeat names its service in 1 to {MAX_TEXT} characters")
        heartbeat.doing = heartbeat.doing[:MAX_TEXT]
        if heartbeat.worker_id in self._pulses or len(self._pulses) < MAX_SERVICES:
            self._pulse(heartbeat.worker_id).hear(heartbeat, self._clock())

    @contextlib.contextmanager
    def belonging(self, worker_id: str) -> Iterator[None]:
        """While a service holds a stream to the master. One that leaves is forgotten, unless it is in trouble."""
        pulse = self._pulse(worker_id)
        pulse.num_streams += 1
        try:
            yield
        finally:
            pulse.num_streams -= 1
            if not pulse.num_streams and not trouble(pulse, self._clock()):
                self._pulses.pop(worker_id, None)

    def look(self) -> list[Change]:
        """Returns what has changed since the last look."""
        now, changes = self._clock(), []
        self._forget(now)
        for pulse in self._pulses.values():
            before, pulse.trouble = pulse.trouble, trouble(pulse, now)
            if pulse.trouble and not before:
                changes.append(_began(pulse.worker, pulse.trouble))
            elif before and not pulse.trouble:
                changes.append(_ended(pulse.worker, before, now))
        return changes

    def excuse(self, seconds: float) -> None:
        """Nothing could be heard for so long, because the master itself stood still."""
        for pulse in self._pulses.values():
            pulse.heard_at += seconds
            pulse.moved_at += seconds

    def described(self, workers: Iterable[Worker]) -> list[Worker]:
        """The members with where each runs and what is wrong with it, and those in trouble that are no members now."""
        members = {worker.id: worker for worker in workers}
        away = {
            worker_id: pulse.worker
            for worker_id, pulse in self._pulses.items()
            if worker_id not in members and (pulse.trouble or pulse.reporter_id)
        }
        return [self._describe(worker) for worker in [*members.values(), *away.values()]]

    def _describe(self, worker: Worker) -> Worker:
        pulse = self._pulses.get(worker.id)
        described = Worker()
        if pulse:
            described.MergeFrom(pulse.worker)
        described.MergeFrom(worker)
        if pulse and pulse.trouble:
            described.trouble = pulse.trouble.what
            described.trouble_since_unix_ns = int(unix_time(pulse.trouble.since) * 1e9)
        return described

    def _pulse(self, worker_id: str) -> Pulse:
        return self._pulses.setdefault(worker_id, Pulse(Worker(id=worker_id)))

    def _forget(self, now: float) -> None:
        """Those that have left; those in trouble later; and those of whom a service spoke that is no longer well."""
        for worker_id, pulse in list(self._pulses.items()):
            if pulse.reporter_id:
                reporter = self._pulses.get(pulse.reporter_id)
                is_over = reporter is None or trouble(reporter, now) is not None
            else:
                has_left = not pulse.num_streams and worker_id != BUS
                is_over = has_left and now - pulse.heard_at > (FORGOTTEN_S if pulse.trouble else SILENT_S)
            if is_over:
                del self._pulses[worker_id]

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        now = self._clock()
        for pulse in list(self._pulses.values()):
            found = trouble(pulse, now)
            labels = {"worker": pulse.worker.id, "kind": pulse.worker.kind}
            yield Observation(now - found.since if found else 0.0, labels)


async def watch_fleet(
    liveness: Liveness,
    bus_answers: Callable[[], Awaitable[bool]],
    tell: Callable[[Change], Coroutine[None, None, None]],
) -> None:
    """Looks again and again, for as long as the master runs, and tells each change; telling may take its time."""
    async with asyncio.TaskGroup() as telling:
        while True:
            began = time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)
            late_s = time.monotonic() - began - LOOK_EVERY_S
            if late_s > SILENT_S / 3:
                liveness.excuse(late_s)
            for change in liveness.look():
                logger.warning("%s", change.text)
                telling.create_task(tell(change))
            if await bus_answers():
                liveness.hear(HeartbeatRequest(worker_id=BUS, kind=BUS))
