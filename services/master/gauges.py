"""Says what an operator is woken for, as metrics: the ledgers of active runs, queues, dead letters, the fleet's lag."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from opentelemetry.metrics import CallbackOptions, Observation

from perilune.errors import UnavailableError
from perilune.runtime.telemetry import meter
from services.master.api.fleet import FleetService
from services.master.registry import Registry
from services.master.store import ENDED, Store

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
LEDGER = ("dispatched", "trained", "filtered", "stale", "dead", "in_flight")


@dataclass
class Gauges:
    """The values of the last look; the exporter reads them when it is asked."""

    ledger: list[Observation] = field(default_factory=list)
    balanced: list[Observation] = field(default_factory=list)
    version: list[Observation] = field(default_factory=list)
    waiting: list[Observation] = field(default_factory=list)
    in_hand: list[Observation] = field(default_factory=list)
    dead_letters: list[Observation] = field(default_factory=list)
    workers: list[Observation] = field(default_factory=list)
    lag: list[Observation] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, unit, description in (
            ("ledger", "{sample}", "Samples of an active run, by where they are in the ledger."),
            ("balanced", "1", "1 if the ledger of an active run balances, else 0."),
            ("version", "{version}", "The newest committed version of an active run."),
            ("waiting", "{message}", "Messages of a queue that wait for a worker."),
            ("in_hand", "{message}", "Messages of a queue that a worker holds."),
            ("dead_letters", "{message}", "Messages that were given up and are kept."),
            ("workers", "{worker}", "Members of the fleet, by kind."),
            ("lag", "{version}", "How many versions a worker is behind its run."),
        ):
            meter.create_observable_gauge(f"perilune.master.{name}", [self._reader(name)], unit, description)

    def _reader(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return list(getattr(self, name))

        return read

    async def look(self, store: Store, registry: Registry, fleet: FleetService) -> None:
        """Takes the values again. UnavailableError if the bus does not answer."""
        newest = {}
        self.ledger, self.balanced, self.version = [], [], []
        for row in await store.runs():
            if row.state in ENDED:
                continue
            ledger, policy = await store.ledger(row.id), await store.newest_version(row.id)
            self.ledger += [Observation(getattr(ledger, at), {"run": row.id, "at": at}) for at in LEDGER]
            self.balanced.append(Observation(int(ledger.balanced), {"run": row.id}))
            if policy:
                newest[row.id] = policy.number
                self.version.append(Observation(policy.number, {"run": row.id}))
        workers = fleet.workers()
        kinds = [worker.kind for worker in workers]
        self.workers = [
            Observation(kinds.count(kind), {"kind": kind}) for kind in sorted({*kinds, "trainer", "rollout", "reward"})
        ]
        self.lag = [
            Observation(newest[worker.run_id] - worker.policy.number, {"run": worker.run_id, "worker": worker.id})
            for worker in workers
            if worker.HasField("policy") and worker.run_id in newest
        ]
        backlogs, num_dead_letters = await registry.backlogs()
        self.waiting = [Observation(backlog.num_waiting, {"queue": backlog.consumer}) for backlog in backlogs]
        self.in_hand = [Observation(backlog.num_in_hand, {"queue": backlog.consumer}) for backlog in backlogs]
        self.dead_letters = [Observation(num_dead_letters)]


async def keep_gauges(store: Store, registry: Registry, fleet: FleetService) -> None:
    """Looks again and again, for as long as the master runs."""
    gauges = Gauges()
    while True:
        try:
            await gauges.look(store, registry, fleet)
        except UnavailableError as error:
            logger.warning("the gauges are old: %s", error)
        await asyncio.sleep(LOOK_EVERY_S)
