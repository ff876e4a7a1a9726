"""The trainer's work: leases a run, trains it, and streams its weights.

consumes       batches of scored groups, from the master
produces       weight versions: to the fleet by the weight stream, to the master as commits
waits for      a run to lease, then each iteration's batch
unblocked by   rollout and reward workers, which complete the batch

Of several ranks the first one does this; the others follow its orders, and serve their part of the weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import grpc

from perilune.api.master.v1.master_pb2 import (
    AcquireRunRequest,
    AcquireRunResponse,
    Assignment,
    CommitVersionRequest,
    FailRunRequest,
    GetBatchRequest,
    RefusedSample,
    ScoredGroup,
    Version,
)
from perilune.api.master.v1.master_pb2_grpc import TrainingServiceStub
from perilune.api.trajectory.v1.trajectory_pb2 import Event, StageProgress
from perilune.channel import refusal
from perilune.errors import NoRoomError, PeriluneError, SettingsError, UnavailableError, verdict
from perilune.ids import event_id
from perilune.recipe import Recipe, read_stored_recipe
from perilune.runtime import telemetry
from perilune.runtime.bus import Bus
from perilune.runtime.images import ImageCache
from perilune.runtime.service import Service
from perilune.runtime.vitals import Vitals
from perilune.weights.adapted import STREAM
from services.trainer.gap import gap_limit, gap_warning
from services.trainer.hybrid import Turns
from services.trainer.images import fetch_images
from services.trainer.learner import InterruptedTraining
from services.trainer.ranks.group import END, RankLostError, Ranks
from services.trainer.session import FOLLOW, Session, versions_of
from services.trainer.stages.runner import OnStep, StageStep
from services.trainer.versions.publisher import Publisher

logger = logging.getLogger(__name__)

RETRY_S = 0.5
MAX_RETRY_S = 2.0  # a master that was killed is there again within a few seconds
PROGRESS_S = 1.0
ROOM_RETRY_S = 2.0  # before a checkpoint is written again that a full disk had no room for

_tokens = telemetry.meter.create_counter("perilune.trainer.tokens", unit="{token}", description="Trained tokens.")
_stage_tokens = telemetry.meter.create_counter(
    "perilune.trainer.stage_tokens", "{token}", "Tokens that stages before and after reinforcement learning trained."
)
_stage_loss = telemetry.meter.create_gauge("perilune.trainer.stage_loss", "{nat}", "The loss of a stage's newest step.")
_gap = telemetry.meter.create_gauge(
    "perilune.trainer.engine_gap", "{nat}", "The largest difference of an engine's log-probability from the trainer's."
)
_gap_limit = telemetry.meter.create_gauge(
    "perilune.trainer.engine_gap_limit", "{nat}", "What `engine_gap` may be before something is wrong."
)
_seconds = telemetry.meter.create_histogram("perilune.trainer.iteration", unit="s", description="Time of training.")

# Orders to the other ranks, beside those of the session.
OPEN, PUBLISH = "open", "publish"

T = TypeVar("T")
Lease = grpc.aio.UnaryStreamCall[AcquireRunRequest, AcquireRunResponse]


class Trainer:
    """One run after the other, each for as long as the master leaves it to this trainer."""

    def __init__(
        self,
        service: Service,
        bus: Bus,
        publisher: Publisher,
        channel: grpc.aio.Channel,
        ranks: Ranks,
        addresses: Sequence[str],
        thread: Executor,
        images: ImageCache,
    ) -> None:
        """`addresses`: where each rank serves its part."""
        self._service = service
        self._bus = bus
        self._publisher = publisher
        self._master = TrainingServiceStub(channel)
        self._ranks = ranks
        self._addresses = addresses
        self._thread, self._images = thread, images
        self._run_id = ""
        self._doing = ""  # in torch's thread
        self._num_steps = 0
        self._told_gap = 0.0  # nats, of the run at hand

    def vitals(self) -> Vitals:
        """The work of torch's thread: nothing while the trainer waits for a run, or for the fleet."""
        return Vitals(self._doing, self._num_steps, self._run_id)

    async def work(self) -> None:
        """Leases runs for ever; whatever ends a lease, the next one starts from the run's last checkpoint."""
        delay = RETRY_S
        while True:
            try:
                await self._serve_lease()
                delay = RETRY_S
            except grpc.aio.AioRpcError as error:
                if wrong := refusal(error, f"the master at {self._service.settings.master_address}"):
                    raise wrong from error
                logger.warning("the master at %s: %s", self._service.settings.master_address, error.details())
                delay = min(2 * delay, MAX_RETRY_S)
            await asyncio.sleep(delay)

    async def _serve_lease(self) -> None:
        request = AcquireRunRequest(
            trainer_id=self._service.id,
            weights_address=self._service.address,
            rank_addresses=self._addresses if self._ranks.size > 1 else [],
        )
        lease = self._master.AcquireRun(request)
        try:
            first = await _read(lease)
            if first is None or not first.HasField("assignment"):
                return
            training = asyncio.create_task(self._train_or_fail(first.assignment))
            ending = asyncio.create_task(_end_of(lease))
            try:
                await asyncio.wait([training, ending], return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopped_early = training.cancel()  # waits for the step at hand: nothing else may use the thread
                ending.cancel()
                await asyncio.wait([training, ending])
            if not stopped_early:
                training.result()
        finally:
            lease.cancel()

    async def _train_or_fail(self, assignment: Assignment) -> None:
        """Trains, and tells the master where our own error says that trying again would not help."""
        logger.info("training run %s", assignment.run_id)
        stop, self._run_id = _Stop(self._step), assignment.run_id
        try:
            with Turns(self._service.settings.hybrid, assignment.run_id, stop.is_set) as turns:
                await self._train(assignment, read_stored_recipe(assignment.recipe_json), stop, turns)
        except RankLostError:
            raise  # the run can go on, from its checkpoint, when the ranks have met again
        except PeriluneError as error:
            logger.error("run %s cannot go on: %s", assignment.run_id, error)
            run_id, epoch = assignment.run_id, assignment.lease_epoch
            failure = FailRunRequest(run_id=run_id, reason=verdict(error), lease_epoch=epoch)
            await self._master.FailRun(failure)
        finally:
            _gap.set(0.0, {"run": assignment.run_id})

    async def _train(self, assignment: Assignment, recipe: Recipe, stop: threading.Event, turns: Turns) -> None:
        run_id, self._told_gap = assignment.run_id, 0.0
        if recipe.trainer.adapter and self._service.settings.hybrid:
            raise SettingsError(
                "trainer.adapter: a trainer that takes turns with its pod's engine (PERILUNE_HYBRID) hands over whole "
                "policies; start it without, or train without adapters"
            )
        committed = assignment.committed if assignment.HasField("committed") else None
        first_to_commit = committed.number if committed else 0
        adapter = STREAM if recipe.trainer.adapter else ""
        versions = versions_of(recipe, self._service.settings.home / run_id, self._ranks)
        self._publisher.open(run_id, versions, adapter)
        await self._in_thread(stop, self._ranks.order, OPEN, run_id)
        await self._in_thread(stop, turns.begin)
        session = await self._start(assignment, recipe, stop)
        session.measured = self._publisher.measured(run_id)
        if session.base:
            self._publisher.publish_base(run_id, session.base)
        waited_s = 0.0
        while True:
            # Versions before the committed one are only made again, from the same batches. The committed one is
            # committed once more: the master then knows that its weights are served.
            if session.number >= first_to_commit:
                self._check_repetition(assignment, session)
                session.published = await self._in_thread(stop, turns.share, session.published)
                await self._in_thread(stop, self._ranks.order, PUBLISH)
                self._publisher.publish(run_id, session.published)
                if session.is_last:  # no later step would write it
                    await self._checkpoint(run_id, session, stop)
                if await self._commit(assignment, session, waited_s):
                    return
                if committed is None or session.number > committed.number:
                    self._service.worked()
            # While the fleet samples. A version that is lost before it is written is made again from its batch.
            await self._checkpoint(run_id, session, stop)
            await self._in_thread(stop, turns.leave, session.tensors())
            started = time.perf_counter()
            batch = await self._batch(assignment, session.number)
            waited_s = time.perf_counter() - started
            await self._in_thread(stop, turns.take)
            links = [link for group in batch for link in telemetry.link_to(group.traceparent)]
            with telemetry.tracer.start_as_current_span("train", links=links) as span:
                span.set_attributes({"perilune.run": run_id, "perilune.iteration": session.number})
                await self._advance(session, batch, stop)
            _tokens.add(int(session.metrics["num_tokens"]))
            _seconds.record(session.metrics["train_seconds"])
            await self._tell_gap(run_id, session)

    async def _checkpoint(self, run_id: str, session: Session, stop: threading.Event) -> None:
        """Writes what is due. A full disk is waited for, and named: that is no failure of the run."""
        is_named = False
        while True:
            try:
                return await self._in_thread(stop, session.checkpoint)
            except NoRoomError as error:
                if self._ranks.size > 1:
                    raise
                logger.error("run %s waits for room on the disk: %s", run_id, error)
                event = Event(run_id=run_id, kind="warning", iteration=session.number, text=f"waits for room: {error}")
                if not is_named:
                    await self._tell(event, f"room-{session.number}")
                is_named = True
            await asyncio.sleep(ROOM_RETRY_S)

    async def _start(self, assignment: Assignment, recipe: Recipe, stop: threading.Event) -> Session:
        """Opens the run's session, with its stages before reinforcement learning."""
        committed = assignment.committed if assignment.HasField("committed") else None
        folder = self._service.settings.home / assignment.run_id
        async with self._reporting(assignment.run_id) as on_step:
            return await self._in_thread(
                stop, Session.open, recipe, folder, committed, stop.is_set, on_step, assignment.versions, self._ranks
            )

    async def _advance(self, session: Session, batch: Sequence[ScoredGroup], stop: threading.Event) -> None:
        """Makes the next version: by an iteration, or by a stage after reinforcement learning, which has no batch."""
        if session.stage is None:
            await self._in_thread(stop, session.train, batch, await fetch_images(batch, self._images))
            return
        async with self._reporting(self._run_id) as on_step:
            await self._in_thread(stop, session.run_stage, on_step)

    @contextlib.asynccontextmanager
    async def _reporting(self, run_id: str) -> AsyncIterator[OnStep]:
        """Sends the newest step of each stage every moment while the context is open, and once more at its end."""
        news: dict[int, StageStep] = {}

        def on_step(step: StageStep) -> None:
            news[step.index] = step
            _stage_tokens.add(int(step.metrics["num_tokens"]), {"stage": step.name})
            _stage_loss.set(step.metrics["loss"], {"run": run_id, "stage": step.name})

        async def report() -> None:
            for index in sorted(news):
                await self._tell_stage(run_id, news.pop(index))

        async def report_often() -> None:
            while True:
                await asyncio.sleep(PROGRESS_S)
                await report()

        reporting = asyncio.create_task(report_often())
        try:
            yield on_step
        finally:
            reporting.cancel()
            await asyncio.wait([reporting])
            await report()

    async def _tell_stage(self, run_id: str, step: StageStep) -> None:
        metrics = {name: value for name, value in step.metrics.items() if math.isfinite(value)}
        stage = StageProgress(
            index=step.index,
            name=step.name,
            step=step.step,
            num_steps=step.num_steps,
            metrics=metrics,
            time_unix_ns=time.time_ns(),
        )
        event = Event(run_id=run_id, kind="stage", stage=stage)
        await self._tell(event, f"{step.index}/{step.step}/{stage.time_unix_ns}")

    async def _tell_gap(self, run_id: str, session: Session) -> None:
        """Warns where the engine and this trainer do not compute the same policy: in the log, an event and a metric."""
        _gap.set(session.metrics.get("engine_gap", 0.0), {"run": run_id})
        _gap_limit.set(gap_limit(session.recipe), {"run": run_id})
        text, gap = gap_warning(session.recipe, session.metrics), session.metrics.get("engine_gap", 0.0)
        if text and gap > 2 * self._told_gap:  # not at every iteration, unless it grows
            self._told_gap = gap
            logger.warning("run %s, version %d: %s", run_id, session.number, text)
            event = Event(run_id=run_id, kind="warning", iteration=session.number - 1, text=text)
            await self._tell(event, f"{session.number}")

    async def _tell(self, event: Event, number: str) -> None:
        """Publishes an event; the number tells it from others of its kind."""
        event.time_unix_ns, event.source = time.time_ns(), self._service.id
        try:
            message_id = event_id(event.run_id, event.source, event.kind, number)
            await self._bus.publish_event(event, message_id)
        except UnavailableError as error:  # it is not seen; training does not depend on that
            logger.warning("%s", error)

    async def _batch(self, assignment: Assignment, iteration: int) -> list[ScoredGroup]:
        request = GetBatchRequest(run_id=assignment.run_id, iteration=iteration, lease_epoch=assignment.lease_epoch)
        parts = self._master.GetBatch(request)
        groups: dict[str, ScoredGroup] = {}
        async for part in parts:
            for group in part.groups:  # one of long samples comes in several parts
                if group.group_id in groups:
                    groups[group.group_id].samples.extend(group.samples)
                else:
                    groups[group.group_id] = group
        return list(groups.values())

    async def _commit(self, assignment: Assignment, session: Session, waited_s: float) -> bool:
        """Commits the session's version; true if it was the run's last."""
        metrics = session.metrics
        version = Version(
            policy=session.published.policy,
            num_samples=int(metrics.get("num_samples", 0)),
            num_tokens=int(metrics.get("num_tokens", 0)),
            metrics=metrics | {"wait_seconds": waited_s},
            time_unix_ns=time.time_ns(),
        )
        refused = [RefusedSample(**vars(sample)) for sample in session.refused]
        request = CommitVersionRequest(
            run_id=assignment.run_id,
            version=version,
            model_path=session.model_path,
            refused=refused,
            lease_epoch=assignment.lease_epoch,
        )
        return (await self._master.CommitVersion(request)).finished

    def _check_repetition(self, assignment: Assignment, session: Session) -> None:
        policy, committed = session.published.policy, assignment.committed
        if assignment.HasField("committed") and policy.number == committed.number and policy.digest != committed.digest:
            logger.warning(
                "version %d came out as %s where %s is committed; exact repetition needs trainer.num_threads = 1 and "
                "the same machine",
                policy.number,
                policy.digest,
                committed.digest,
            )

    async def _in_thread(self, stop: threading.Event, work: Callable[..., T], *arguments: object) -> T:
        """Runs blocking work in torch's thread. When cancelled, asks it to stop and returns after it has."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        self._doing = getattr(work, "__name__", "work").replace("_", " ")
        self._num_steps += 1
        future.add_done_callback(self._rest)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([future])
            if not future.cancelled() and (error := future.exception()) and not isinstance(error, InterruptedTraining):
                logger.warning("while stopping: %s", error)
            raise

    def _rest(self, _: asyncio.Future[T]) -> None:
        self._doing = ""

    def _step(self) -> None:
        """On torch's thread, between two steps."""
        self._num_steps += 1


class _Stop(threading.Event):
    """Asks torch's thread to stop. It looks between steps, which counts as progress."""

    def __init__(self, on_look: Callable[[], None]) -> None:
        super().__init__()
        self._on_look = on_look

    def is_set(self) -> bool:
        self._on_look()
        return super().is_set()


async def follow(ranks: Ranks, publisher: Publisher, thread: Executor) -> None:
    """Does what the first rank orders, until it orders the end. RankLostError if it is gone."""
    loop, run_id, session = asyncio.get_running_loop(), "", None
    while (order := await loop.run_in_executor(thread, ranks.next_order)).name != END:
        try:
            if order.name == OPEN:
                (run_id,) = order.arguments
                session = None
                publisher.open(run_id)
            elif order.name == FOLLOW:
                session = await loop.run_in_executor(thread, Session.follow, ranks, *order.arguments)
            elif order.name == PUBLISH:
                assert session is not None  # or the first rank had nothing to publish
                publisher.publish(run_id, session.published)
            else:
                await loop.run_in_executor(thread, getattr(session, order.name), *order.arguments)
        except RankLostError:
            raise
        except (InterruptedTraining, PeriluneError) as error:
            # It came to all ranks alike. The first one says what becomes of the run.
            logger.info("%s: %s", run_id, error or "interrupted")


async def _read(lease: Lease) -> AcquireRunResponse | None:
    """The lease's next message; None at its end."""
    message = await lease.read()
    return message if isinstance(message, AcquireRunResponse) else None


async def _end_of(lease: Lease) -> None:
    """Returns when the master asks to stop, or the lease is broken."""
    try:
        answer = await _read(lease)
        reason = answer.stop.reason if answer else "the master closed it"
    except grpc.aio.AioRpcError as error:
        reason = error.details() or error.code().name
    logger.info("the lease ends: %s", reason)
