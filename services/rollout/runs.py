"""The runs of this process: a worker, with an engine of its own, for every one that the master assigns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from perilune.api.master.v1.master_pb2 import RunAssignment
from perilune.api.trajectory.v1.trajectory_pb2 import Event
from perilune.errors import InvalidInputError
from perilune.ids import event_id
from perilune.recipe import read_stored_recipe
from perilune.runtime import bus as buses
from perilune.runtime import subjects
from perilune.runtime.bus import Bus
from perilune.runtime.fleet import assignments
from perilune.runtime.images import ImageCache
from perilune.runtime.service import Service
from perilune.runtime.vitals import Vitals
from perilune.weights.relay import Relay
from perilune.weights.shared_memory import SharedReceiver, SharedVersions
from services.rollout.worker import RunWorker

logger = logging.getLogger(__name__)

HAND_BACK_S = 10.0  # for what is unfinished to be stored on the bus when this service stops


@dataclass(frozen=True)
class _Assigned:
    worker: RunWorker
    news: asyncio.Queue[RunAssignment]
    serving: asyncio.Task[None]


class Workers:
    """The runs of this process: each has an engine, and none waits for another."""

    def __init__(self, service: Service, bus: Bus, relay: Relay, images: ImageCache) -> None:
        self._service, self._images = service, images
        self._bus = bus
        self._relay = relay
        self._assigned: dict[str, _Assigned] = {}

    def all(self) -> list[RunWorker]:
        """The workers of all assigned runs."""
        return [assigned.worker for assigned in self._assigned.values()]

    def vitals(self) -> Vitals:
        """The progress of the engines' work; of several runs the first that is worked for stands for all."""
        busy = [worker for worker in self.all() if worker.doing]
        progress = sum(worker.progress for worker in self.all())
        return Vitals(busy[0].doing, progress, busy[0].run_id) if busy else Vitals(progress=progress)

    async def follow_assignments(self) -> None:
        """Starts a worker for a run that was assigned, and ends that of a run that no longer is.

        When it is cancelled, it gives back what its engines have written so far, for others to go on with.
        """
        async with asyncio.TaskGroup() as tasks:
            try:
                async for runs in assignments(self._service, serves_weights=self._service.settings.hybrid is None):
                    self._follow(runs, tasks)
            except asyncio.CancelledError:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HAND_BACK_S):
                        await asyncio.gather(*(worker.hand_back() for worker in self.all()))
                raise

    def _follow(self, runs: Sequence[RunAssignment], tasks: asyncio.TaskGroup) -> None:
        wanted = {run.run_id: run for run in runs}
        for run_id in self._assigned.keys() - wanted.keys():
            self._assigned.pop(run_id).serving.cancel()
            self._relay.leave(run_id)
        for run in wanted.values():
            if run.run_id not in self._assigned and run.weights_address:
                self._assigned[run.run_id] = self._start(run, tasks)
            if run.run_id in self._assigned:
                self._assigned[run.run_id].news.put_nowait(run)

    def _start(self, run: RunAssignment, tasks: asyncio.TaskGroup) -> _Assigned:
        recipe = read_stored_recipe(run.recipe_json)
        hybrid = self._service.settings.hybrid
        weights = (
            SharedReceiver(SharedVersions.of(hybrid, run.run_id))
            if hybrid
            else self._relay.policy_receiver(run.run_id, self._service.id, recipe.trainer.adapter is not None)
        )
        worker = RunWorker(
            self._service, self._bus, recipe.rollout, run.run_id, weights, recipe.teacher, images=self._images
        )
        news: asyncio.Queue[RunAssignment] = asyncio.Queue()
        return _Assigned(worker, news, tasks.create_task(self._serve(worker, news)))

    async def _serve(self, worker: RunWorker, news: asyncio.Queue[RunAssignment]) -> None:
        """Serves a run. One whose model this worker cannot sample does not end the others: it is reported, and left."""
        try:
            await worker.serve(_each(news))
        except* InvalidInputError as errors:
            text = "; ".join(str(error) for error in _leaves(errors))[: buses.MAX_REASON_CHARS]
            logger.error("cannot serve %s: %s", worker.run_id, text)
            event = Event(
                run_id=worker.run_id,
                time_unix_ns=time.time_ns(),
                source=self._service.id,
                kind="rollout_failed",
                text=text,
            )
            message_id = event_id(event.run_id, event.source, event.kind)
            await self._bus.publish(subjects.event_subject(event.run_id), event, message_id)


async def _each(news: asyncio.Queue[RunAssignment]) -> AsyncIterator[RunAssignment]:
    while True:
        yield await news.get()


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    nested = [_leaves(error) if isinstance(error, BaseExceptionGroup) else [error] for error in errors.exceptions]
    return [leaf for leaves in nested for leaf in leaves]
