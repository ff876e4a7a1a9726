"""The runs that are active: who trains each, what drives each, and who waits for news of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perilune.api.master.v1.master_pb2 import PromptSummary, RunState, Version
from perilune.api.trajectory.v1.trajectory_pb2 import Event, PolicyVersion
from perilune.errors import (
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PeriluneError,
    StateError,
    UnavailableError,
    verdict,
)
from perilune.ids import event_id
from perilune.images.fetching import fetch_from
from perilune.recipe import Mistake, Recipe, read_stored_recipe
from perilune.recipe.files import settled
from perilune.runtime.blobs import Blobs
from perilune.runtime.bus import OUTAGES, Backlog, Bus
from perilune.runtime.subjects import PROMPTS, prompt_subject
from services.master.controller import Controller
from services.master.liveness import BUS, Change, Liveness
from services.master.notification import Notification
from services.master.preflight import check_submission
from services.master.prompts import PromptSet, check_unchanged, open_prompts, summary_of
from services.master.prompts.examples import notes_on_examples
from services.master.prompts.images import ImageAccess
from services.master.reading import Readers
from services.master.store import ENDED, LEASABLE, MAX_INTEGER, Store
from services.master.tables import RunRow

logger = logging.getLogger(__name__)

STOP_PATIENCE_S = 60.0  # for a trainer to end the step at hand
MAX_REASON_CHARS = 10_000  # of a failure, which every list of runs repeats
RETRY_S = 2.0  # before a run that the bus or the database held up is driven on
MAX_LOST_TRAINERS = 5  # with no new version in between
COUNT_TIME_EVERY_S = 10.0  # a master that is killed forgets at most so much of a run's time


@dataclass(eq=False)
class Lease:
    """A trainer's hold on a run, for as long as its stream is open."""

    trainer_id: str
    weights_address: str
    rank_addresses: Sequence[str] = ()  # of a trainer of several ranks
    epoch: int = 0  # the fence that every call of this trainer carries
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class ActiveRun:
    """Describes what the master holds in memory about a run; all of it can be lost."""

    id: str
    recipe: Recipe
    prompts: PromptSet
    changed: Notification = field(default_factory=Notification)
    controller: Controller | None = None
    driver: asyncio.Task[None] | None = None
    lease: Lease | None = None
    weights_address: str = ""  # outlives the lease: the final evaluation still needs the weights
    rank_addresses: Sequence[str] = ()
    policy: PolicyVersion | None = None  # the newest that was committed since this master started
    num_lost_trainers: int = 0  # since a version was committed that is newer than the one before
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=500))
    num_events: int = 0
    failed_on: set[str] = field(default_factory=set)  # rollout workers that say that they cannot sample it
    active_since: float = field(default_factory=time.monotonic)


class Registry:
    """All that changes a run's state goes through here."""

    def __init__(self, store: Store, bus: Bus, blobs: Blobs | None = None, image_hosts: Collection[str] = ()) -> None:
        """`blobs`: where images of prompts go; `image_hosts`: from which they may be fetched."""
        self._store, self._bus, self._blobs = store, bus, blobs
        self._images = ImageAccess(blobs, fetch_from(image_hosts))
        self._active: dict[str, ActiveRun] = {}
        self._waiting = Notification()  # a run waits for a trainer
        self.fleet_changed = Notification()  # the runs to serve, or where their weights are, changed
        self.liveness = Liveness()
        self.rollout_workers: set[str] = set()  # that are in the fleet now, by id
        self._readers = Readers()

    @property
    def bus(self) -> Bus:
        """The bus that its runs are on."""
        return self._bus

    async def recover(self) -> None:
        """Takes up what was active when the last master ended: nothing of it is lost, all of it waits for a trainer."""
        for row in await self._store.runs():
            if row.state == RunState.RUN_STATE_STOPPING:
                await self._store.end_run(row.id, RunState.RUN_STATE_STOPPED, "stopped")
            elif row.state in (RunState.RUN_STATE_STARTING, RunState.RUN_STATE_RUNNING):
                logger.info("taking up %s again", row.id)
                await self._store.requeue(row.id, "the master started again")

    # ---- for people

    async def submit(self, run_id: str, recipe: Recipe, mistakes: Sequence[Mistake] = ()) -> str:
        """Queues a run. RecipeError names all that is known to be wrong with it: better now than in an hour.

        `mistakes`: what others found wrong with the recipe.
        """
        run_id = run_id or f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if not set(run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_") or len(run_id) > 64:
            raise InvalidInputError(f"{run_id!r} is no run id: use up to 64 of a-z, 0-9, '-' and '_'")
        recipe = settled(recipe, Path.cwd())
        prompts = await self._readers.read(check_submission, recipe, mistakes, self._images)
        summary = await self._readers.read(summary_of, prompts)
        summary.notes.extend(await self._readers.read(notes_on_examples, recipe.stages, prompts))
        for note in summary.notes:
            logger.warning("%s: %s", run_id, note)
        if not await self._store.add_run(run_id, recipe.model_dump_json(), summary.SerializeToString()):
            await self._check_prompts(await self._store.run(run_id), recipe, summary)
        self._waiting.notify()
        return run_id

    async def stop(self, run_id: str, failure: str = "") -> None:
        """Stops a run, or fails it for a reason that its trainer cannot give. StateError if it has ended."""
        row = await self._store.run(run_id)
        if row.state in (RunState.RUN_STATE_FINISHED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_STOPPED):
            raise StateError(f"{run_id} is not running: it is {state_name(row.state)}")
        if failure:
            await self.fail(run_id, failure)
            return
        await self._set_state(run_id, RunState.RUN_STATE_STOPPING, "asked to stop")
        active = self._active.get(run_id)
        if active and active.lease:
            active.lease.stop.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(active.lease.ended.wait(), STOP_PATIENCE_S)
        await self._end(run_id, RunState.RUN_STATE_STOPPED, "stopped")

    async def resume(self, run_id: str, num_iterations: int = 0) -> None:
        """Queues a run again, with more iterations if so many are asked for.

        Raises:
            StateError: it cannot be resumed, or its prompts have changed since.
            InvalidInputError: not more iterations, or more would change those that are done.
        """
        row = await self._store.run(run_id)
        if row.state == RunState.RUN_STATE_STOPPING:
            raise StateError(f"{run_id} cannot be resumed: it is stopping")
        if row.state not in ENDED:
            if num_iterations:
                raise StateError(f"{run_id} is {state_name(row.state)}: stop it, then give it more iterations")
            return
        if row.state == RunState.RUN_STATE_FINISHED and not num_iterations:
            raise StateError(
                f"{run_id} cannot be resumed: it is finished; `perilune run extend {run_id} NUM_ITERATIONS` goes on"
            )
        recipe = read_stored_recipe(row.recipe)
        if num_iterations:
            refuse_extension(recipe, num_iterations, await self._store.newest_version(run_id))
        await self._check_prompts(row, recipe, (await self._readers.read(_open, recipe, self._images))[1])
        if num_iterations:
            longer = with_iterations(row.recipe, num_iterations)
            await self._store.extend_run(run_id, longer, f"extended to {num_iterations} iterations")
        else:
            await self._set_state(run_id, RunState.RUN_STATE_PENDING, "resumed")
        self._waiting.notify()

    # ---- for trainers

    @contextlib.asynccontextmanager
    async def lease(
        self, trainer_id: str, weights_address: str, rank_addresses: Sequence[str] = ()
    ) -> AsyncIterator[tuple[ActiveRun, Lease]]:
        """Waits for a run without a trainer and holds it for as long as the context lasts."""
        lease = Lease(trainer_id, weights_address, rank_addresses)
        seen = self._waiting.count
        while (active := await self._take_next(lease)) is None:
            await self._waiting.wait(seen, 5.0)
            seen = self._waiting.count
        try:
            active.weights_address, active.rank_addresses = weights_address, rank_addresses
            if active.driver is None:
                active.active_since = time.monotonic()
            logger.info("%s trains %s, by lease %d", trainer_id, active.id, lease.epoch)
            yield active, lease
        finally:
            active.lease = None
            lease.ended.set()
            self._waiting.notify()
            logger.info("%s has let go of %s", trainer_id, active.id)
            await self._count_time(active)
            await self._count_loss(active, lease)

    async def commit(
        self, run_id: str, lease_epoch: int, version: Version, model_path: str, refused: Mapping[tuple[str, int], str]
    ) -> bool:
        """Records a version and goes on from it; True if it was the last. StaleLeaseError if the lease is over."""
        active = await self.leased(run_id, lease_epoch)
        if active.controller:
            active.controller.add_metrics(version)
        await self._store.commit_version(run_id, lease_epoch, version, model_path, refused)
        if self._active.get(run_id) is active:  # it may have ended meanwhile
            self._go_on(active, version.policy)
        if time.monotonic() - active.active_since > COUNT_TIME_EVERY_S:
            await self._count_time(active)
        return version.policy.number >= active.recipe.last_version

    async def fail(self, run_id: str, reason: str, lease_epoch: int | None = None) -> None:
        """Ends a run as failed. StaleLeaseError if a trainer says so whose lease is over."""
        await self._store.run(run_id)
        reason = reason if len(reason) <= MAX_REASON_CHARS else f"{reason[:MAX_REASON_CHARS]} …"
        if await self._end(run_id, RunState.RUN_STATE_FAILED, reason, lease_epoch):
            logger.error("%s failed: %s", run_id, reason)

    async def _count_loss(self, active: ActiveRun, lease: Lease) -> None:
        """Fails a run whose trainers are lost one after the other, and none gets a version further."""
        if lease.stop.is_set() or self._active.get(active.id) is not active:
            return
        active.num_lost_trainers += 1
        if active.num_lost_trainers > MAX_LOST_TRAINERS:
            version = f"version {active.policy.number}" if active.policy else "the first version"
            await self.fail(
                active.id,
                f"its trainers were lost {active.num_lost_trainers} times, and none came beyond {version}; "
                "the last one's log says why",
            )

    async def leased(self, run_id: str, lease_epoch: int) -> ActiveRun:
        """The run that a trainer holds. NotFoundError, StaleLeaseError."""
        await self._store.run(run_id)
        await self._store.check_lease(run_id, lease_epoch)
        return self.active(run_id)

    def _go_on(self, active: ActiveRun, policy: PolicyVersion) -> None:
        if active.policy is None or policy.number > active.policy.number:
            active.num_lost_trainers = 0
        active.policy = policy
        self.fleet_changed.notify()
        if active.driver is None:
            active.controller = Controller(
                active.id, active.recipe, active.prompts, self._store, self._bus, self._blobs, active.changed
            )
            active.driver = asyncio.create_task(self._drive(active, active.controller))
        active.changed.notify()

    # ---- for everyone

    def active(self, run_id: str) -> ActiveRun:
        """The active run of that id. NotFoundError if it is not active."""
        if run_id not in self._active:
            raise NotFoundError(f"the run {run_id!r} is not active")
        return self._active[run_id]

    def find(self, run_id: str) -> ActiveRun | None:
        """The active run of that id, or None."""
        return self._active.get(run_id)

    def num_news(self, run_id: str) -> int:
        """Returns how much has come for a run; to be read before looking at it, and given to `wait_for_news`."""
        return self._active[run_id].changed.count if run_id in self._active else 0

    async def wait_for_news(self, run_id: str, seen: int, interval_s: float) -> None:
        """Returns when there is more for a run than was seen, but not sooner than after the interval."""
        await asyncio.sleep(interval_s)
        if active := self._active.get(run_id):
            await active.changed.wait(seen, 5.0)

    async def backlogs(self) -> tuple[list[Backlog], int]:
        """The work that is left on every queue, and how many dead letters are kept."""
        return await self._bus.backlogs(), await self._bus.num_dead_letters()

    def served(self) -> list[ActiveRun]:
        """The runs that the fleet is to sample for."""
        return [run for run in self._active.values() if run.weights_address]

    def notify(self, run_id: str) -> None:
        """Wakes all that wait for news of a run."""
        if run_id in self._active:
            self._active[run_id].changed.notify()

    async def hear(self, event: Event) -> None:
        """Keeps an event for the run's watchers. A model that no rollout worker can sample is the end of its run."""
        active = self._active.get(event.run_id)
        if active is None:
            return
        if event.HasField("stage"):
            await self._record(event)
        active.events.append(event)
        active.num_events += 1
        active.changed.notify()
        if event.kind == "rollout_failed":
            active.failed_on.add(event.source)
            if self.rollout_workers <= active.failed_on:
                await self.fail(event.run_id, f"{event.source} cannot sample it: {event.text}")

    async def _record(self, event: Event) -> None:
        """Keeps how far a stage is. InvalidInputError: it is at no step that there can be."""
        stage = event.stage
        if not 1 <= stage.step <= stage.num_steps <= MAX_INTEGER:
            raise InvalidInputError(f"a stage of {event.run_id} is at step {stage.step} of {stage.num_steps}")
        await self._store.record_stage_step(event.run_id, stage)

    async def tell_of(self, change: Change) -> None:
        """An event of each run that a service's trouble, or its end, concerns; past the bus where that is away."""
        worker = change.worker
        kind = "back" if change.is_well else "silent"
        for run_id in [worker.run_id] if worker.run_id in self._active else list(self._active):
            event = Event(run_id=run_id, time_unix_ns=time.time_ns(), source=worker.id, kind=kind, text=change.text)
            try:
                if worker.kind == BUS:
                    raise UnavailableError(change.text)
                message_id = event_id(run_id, worker.id, kind, event.time_unix_ns)
                await self._bus.publish_event(event, message_id)
            except UnavailableError:
                await self.hear(event)

    def dispatch_again(self, run_id: str) -> None:
        """Has a run ask again for all that it awaits, if it is active."""
        active = self._active.get(run_id)
        if active and active.controller:
            active.controller.dispatch_again()

    async def ask_again(self, missing: Sequence[str]) -> None:
        """Asks again for all that is awaited, for the bus came back without these streams; every run says so."""
        text = (
            f"the bus came back without {', '.join(missing)}: they are declared again, and what was on them and is "
            "still awaited is asked for again; dead letters and events that it kept are gone"
        )
        logger.error("%s", text)
        for active in list(self._active.values()):
            if active.controller:
                active.controller.dispatch_again()
            now = time.time_ns()
            await self.hear(Event(run_id=active.id, time_unix_ns=now, source=BUS, kind="warning", text=text))

    def active_seconds(self, run_id: str) -> float:
        """Wall time since it was last written to the database."""
        active = self._active.get(run_id)
        return time.monotonic() - active.active_since if active and (active.lease or active.driver) else 0.0

    async def close(self) -> None:
        """Ends the drivers of all runs; the runs stay as they are."""
        drivers = [run.driver for run in self._active.values() if run.driver]
        for driver in drivers:
            driver.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)

    async def _take_next(self, lease: Lease) -> ActiveRun | None:
        """Gives the lease to the oldest run that waits for a trainer, if there is one."""
        for row in reversed(await self._store.runs()):
            if row.state not in LEASABLE or not (active := await self._activate(row)):
                continue
            only_evaluation_left = active.controller is not None and active.controller.is_last
            if active.lease is None and not only_evaluation_left:
                active.lease = lease  # at once: another trainer looks while this one waits for the database
                if epoch := await self._store.open_lease(row.id, f"{lease.trainer_id} prepares the model"):
                    lease.epoch = epoch
                    self.notify(row.id)
                    return active
                active.lease = None
        return None

    async def _activate(self, row: RunRow) -> ActiveRun | None:
        if row.id not in self._active:
            try:
                recipe = read_stored_recipe(row.recipe)
                prompts, summary = await self._readers.read(_open, recipe, self._images)
                await self._check_prompts(row, recipe, summary)
            except (UnavailableError, OverloadedError) as error:
                logger.warning("%s: %s; it waits", row.id, error)
                return None
            except Exception as error:  # a recipe and its data decide what comes: it is the end of this run alone
                if not isinstance(error, PeriluneError):
                    logger.exception("the prompts of %s cannot be opened", row.id)
                await self.fail(row.id, _in_words(error))
                return None
            self._active.setdefault(row.id, ActiveRun(row.id, recipe, prompts))
        return self._active[row.id]

    async def _check_prompts(self, row: RunRow, recipe: Recipe, summary: PromptSummary) -> None:
        """StateError if the prompts are others than at submission; what an older version did not keep is kept now."""
        if row.prompts is None:
            await self._store.set_prompts(row.id, summary.SerializeToString())
        else:
            check_unchanged(recipe.prompts, PromptSummary.FromString(row.prompts), summary)

    async def _drive(self, active: ActiveRun, controller: Controller) -> None:
        try:
            await self._drive_patiently(active.id, controller)
            await self._end(active.id, RunState.RUN_STATE_FINISHED)
        except PeriluneError as error:
            await self.fail(active.id, verdict(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever one run's data and statistics make of it ends that run alone
            logger.exception("the controller of %s broke", active.id)
            await self.fail(active.id, f"the master's controller broke: {_in_words(error)}; its log says where")

    async def _drive_patiently(self, run_id: str, controller: Controller) -> None:
        """Waits while the bus or the database is away: that is no failure of the run, and the database knows it all."""
        while True:
            try:
                return await controller.drive()
            except Exception as error:  # what a database driver raises is its own
                if not (isinstance(error, OUTAGES) or await self._store.is_fault_of(error)):
                    raise
                logger.warning("%s waits for the bus or the database: %s", run_id, error or repr(error))
            await asyncio.sleep(RETRY_S)

    async def _set_state(self, run_id: str, state: RunState.ValueType, reason: str = "") -> None:
        await self._store.set_state(run_id, state, reason)
        self.notify(run_id)

    async def _count_time(self, active: ActiveRun) -> None:
        since, active.active_since = active.active_since, time.monotonic()
        await self._store.add_active_seconds(active.id, active.active_since - since)

    async def _end(
        self, run_id: str, state: RunState.ValueType, reason: str = "", lease_epoch: int | None = None
    ) -> bool:
        """Lets go of a run: no one drives it or samples for it, and what no worker has taken yet is forgotten.

        False if it has ended already. StaleLeaseError if the trainer that ends it has lost its lease.
        """
        if not await self._store.end_run(run_id, state, reason, lease_epoch):
            return False
        active = self._active.pop(run_id, None)
        if active:
            await self._count_time(active)
            if active.driver and active.driver is not asyncio.current_task():
                active.driver.cancel()
                await asyncio.gather(active.driver, return_exceptions=True)
            if active.lease:
                active.lease.stop.set()
        self.fleet_changed.notify()
        try:
            await self._bus.purge(PROMPTS, prompt_subject(run_id, await self._store.newest_version(run_id)))
        except UnavailableError as error:  # what waits there is then sampled in vain, if a worker still takes it
            logger.warning("%s: %s", run_id, error)
        logger.info("%s is %s", run_id, state_name(state))
        if active:
            active.changed.notify()
        return True


def _open(recipe: Recipe, images: ImageAccess) -> tuple[PromptSet, PromptSummary]:
    prompts = open_prompts(recipe.prompts, recipe.seed, images)
    return prompts, summary_of(prompts)


def refuse_extension(recipe: Recipe, num_iterations: int, newest: PolicyVersion | None) -> None:
    """InvalidInputError if a run cannot be given so many iterations without changing what is done."""
    table = recipe.trainer
    if num_iterations <= table.num_iterations:
        raise InvalidInputError(
            f"trainer.num_iterations: the run has {table.num_iterations} already; it can only be given more"
        )
    if newest and newest.number > table.num_iterations:
        raise InvalidInputError(
            f"trainer.num_iterations: a stage after reinforcement learning has made version {newest.number} already; "
            "start a new run from this one's weights (model.path)"
        )
    if table.final_learning_rate is not None:
        raise InvalidInputError(
            "trainer.num_iterations: the learning rate went down to trainer.final_learning_rate over the iterations "
            "that were planned, and would have gone down otherwise over more; start a new run from this one's weights "
            "(model.path)"
        )


def with_iterations(recipe_json: str, num_iterations: int) -> str:
    """A stored recipe with another number of iterations; keys that this version does not know stay."""
    recipe = json.loads(recipe_json)
    recipe["trainer"]["num_iterations"] = num_iterations
    return json.dumps(recipe, ensure_ascii=False)


def _in_words(error: Exception) -> str:
    return verdict(error) if isinstance(error, PeriluneError) else f"{type(error).__name__}: {error}"


def state_name(state: int) -> str:
    """A RunState as a word, such as `running`."""
    return RunState.Name(state).removeprefix("RUN_STATE_").lower()  # type: ignore[arg-type]
