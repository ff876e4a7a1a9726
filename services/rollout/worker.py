"""One run on this worker: weight versions and groups come in, trajectories go out."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from perilune.api.master.v1.master_pb2 import RunAssignment
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask, RunStatus
from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import Event, PolicyVersion
from perilune.codec import unpack
from perilune.errors import InvalidInputError, PeriluneError, UnavailableError, WeightStreamError
from perilune.ids import DIGEST_CHARS, SampleId, StageId, event_id
from perilune.models.chat import check_continuation, check_ids, closing_token, vocabulary_digest
from perilune.models.files import build_tokenizer, end_tokens, num_embeddings, read_config
from perilune.models.response_text import ResponseText
from perilune.models.vision import VisionReader, read_processor
from perilune.recipe import EnvironmentBase, RolloutTable, TeacherTable
from perilune.runtime import bus as buses
from perilune.runtime import subjects
from perilune.runtime.bus import Bus, Delivery, in_words
from perilune.runtime.device_lock import DeviceLock
from perilune.runtime.fleet import report_serving
from perilune.runtime.images import ImageCache
from perilune.runtime.service import Service
from perilune.runtime.telemetry import meter, tracer
from perilune.runtime.wholes import digest_of, text_of
from perilune.weights.adapted import AdaptedReceiver
from perilune.weights.quantized import dequantized
from perilune.weights.receiver import StagedVersion
from perilune.weights.shards import ShardedReceiver
from perilune.weights.shared_memory import SharedReceiver
from services.rollout.config import RolloutSettings
from services.rollout.door import Door
from services.rollout.engines import make_engine
from services.rollout.engines.base import Engine, EngineSpec, Generated, SampleRequest
from services.rollout.engines.hybrid_engine import HybridEngine
from services.rollout.environments import environment_of, make_environment
from services.rollout.environments.asking import ask
from services.rollout.rollout import Rollout
from services.rollout.stall import StallDetector
from services.rollout.tasks import MAX_SAMPLES, check_task
from services.rollout.teacher import Teacher
from services.rollout.tokenizer import ReadPrompt, read_prompt, reread_prompt

logger = logging.getLogger(__name__)

generated_tokens = meter.create_counter("perilune.rollout.tokens", "{token}", "Tokens generated")
running_samples = meter.create_up_down_counter("perilune.rollout.samples", "{sample}", "Samples in hand")

UNFINISHED = (trajectory.ENDING_BUDGET, trajectory.ENDING_ABORTED)
HAND_OVER_S = 0.1  # before what a worker gives up is delivered again: not to its own last request
LOOK_EVERY_S = 1.0  # at the engine's progress
SHARES = 4  # a fetch takes at most this part of the engine's places, so that other workers get their share


class RunWorker:
    """Consumes the run's prompts once a version is served; produces its finished trajectories.

    Several groups are in hand at once, as many as the engine has places for. A group's message is acked when all its
    trajectories are stored on the bus; if this worker ends before, or gets stuck, it goes to another. What a sample's
    data, template, tokenizer, tokens or environment raise is that sample's failure, and a dead letter.
    """

    def __init__(
        self,
        service: Service,
        bus: Bus,
        recipe: RolloutTable,
        run_id: str,
        weights: ShardedReceiver | AdaptedReceiver | SharedReceiver,
        teacher: TeacherTable | None = None,
        *,
        images: ImageCache,
    ) -> None:
        assert isinstance(service.settings, RolloutSettings)
        self.run_id = run_id
        self._service = service
        self._settings = service.settings
        self._bus = bus
        self._recipe = recipe
        self._weights = weights
        self._loop = asyncio.get_running_loop()
        self._engine: Engine | None = None
        self._images = images
        self._vision: VisionReader | None = None
        self._tokenizer: Any = None
        self._text_of: ResponseText | None = None
        self._closing_token: int | None = None  # with which the model ends its turn in a chat
        self._num_embeddings = 0
        self._policy: PolicyVersion | None = None
        self._loads: PolicyVersion | None = None  # the version that the engine is being given
        self._num_swaps = 0
        self._num_in_hand = 0  # samples of groups that were taken and are not yet acked
        self._held: dict[tuple[int, str], Delivery[RolloutTask]] = {}  # those groups, by their messages' names
        self._is_stuck = False
        self._results: dict[str, asyncio.Future[Generated]] = {}
        self._to_submit: list[SampleRequest] = []
        self._publishing: set[asyncio.Future[list[None]]] = set()  # groups that the engine has
        self._is_leaving = False
        self._changed = asyncio.Condition()  # a version was swapped in, a group is done, or a stuck engine goes on
        self._teacher = Teacher(teacher, self._settings.teacher_address, self._warn) if teacher else None
        self._door = Door(bus, self._changed, self._is_broken)

    async def serve(self, assigned: AsyncIterator[RunAssignment]) -> None:
        """Works until cancelled. `assigned`: this run, at first and whenever its weights move or there are newer ones.

        InvalidInputError (in a group) if no engine can serve this run's model. Whatever ends the engine is raised.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(assigned))
                tasks.create_task(self._swap_versions())
                async with self._changed:
                    await self._changed.wait_for(lambda: self._engine is not None)
                assert self._engine is not None
                if self._teacher:
                    await self._teacher.check(vocabulary_digest(self._tokenizer))
                tasks.create_task(_raise_failure(self._engine))
                tasks.create_task(self._watch())
                await self._take_groups(tasks)
        finally:
            if self._teacher:
                await self._teacher.close()
            if self._engine:
                await asyncio.to_thread(self._engine.close)

    def status(self) -> RunStatus:
        """Returns how busy the engine is, and which version it serves."""
        status = RunStatus(run_id=self.run_id, engine=self._recipe.engine.type, policy=self._policy)
        if self._engine:
            capacity = self._engine.capacity()
            status.num_running = capacity.num_running
            status.num_waiting = capacity.num_waiting
            status.max_running = capacity.max_running
            status.num_generated_tokens = capacity.num_generated_tokens
            status.busy_seconds = capacity.busy_s
        return status

    @property
    def doing(self) -> str:
        """The engine's present work, for a reader; empty while it waits."""
        if self._loads:
            return f"loads version {self._loads.number} of {self.run_id}"
        capacity = self._engine.capacity() if self._engine else None
        # An engine that takes turns has nothing running while the device is the trainer's.
        is_busy = capacity and (capacity.num_running or (capacity.num_waiting and not self._settings.hybrid))
        return f"samples {self.run_id}" if is_busy else ""

    @property
    def progress(self) -> int:
        """Tokens drawn, and versions served."""
        return self._num_swaps + (self._engine.capacity().num_generated_tokens if self._engine else 0)

    # What other callers of the engine need (`openai/`): None before the first version.

    @property
    def engine(self) -> Engine | None:
        """The engine that samples this run."""
        return self._engine

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer."""
        return self._tokenizer

    @property
    def vision(self) -> VisionReader | None:
        """The reader of images; None of a model that reads text alone."""
        return self._vision

    @property
    def policy(self) -> PolicyVersion | None:
        """The version that is served."""
        return self._policy

    # Weights.

    async def _follow(self, assigned: AsyncIterator[RunAssignment]) -> None:
        """Passes on where the weights are; a run without a trainer keeps the version it has."""
        async for run in assigned:
            self._weights.move([run.weights_address, *run.weights_fallbacks], run.rank_addresses)
            if run.HasField("policy"):
                self._weights.expect(run.policy)

    async def _swap_versions(self) -> None:
        async for staged in self._weights.versions():
            try:
                await self._swap(replace(staged, tensors=await asyncio.to_thread(dequantized, staged.tensors)))
            except WeightStreamError as error:
                if self._engine is None:  # there is nothing to go on with
                    raise InvalidInputError(f"the weights are not those of the model's config.json: {error}") from error
                logger.error("%s: the version before goes on serving: %s", self.run_id, error)
                continue
            logger.info("%s: serves version %d", self.run_id, staged.manifest.version.number)
            await report_serving(self._service, self.run_id, staged.manifest.version, self._weights.source)

    async def _swap(self, staged: StagedVersion) -> None:
        """WeightStreamError if the tensors are not this model's; what was served before then goes on."""
        policy = self._loads = staged.manifest.version
        try:
            if self._engine is None:
                await asyncio.to_thread(self._build, staged)
            else:
                await asyncio.wrap_future(self._engine.load(policy, staged.tensors))
        finally:
            self._loads = None
            self._num_swaps += 1
        async with self._changed:
            self._policy = policy
            self._changed.notify_all()

    def _build(self, staged: StagedVersion) -> None:
        """InvalidInputError if a model cannot be served; a device without room for it is no fault of the model."""
        try:
            self._build_engine(staged)
        except (PeriluneError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model is a program and its files may hold anything
            logger.exception("%s: the model cannot be served", self.run_id)
            raise InvalidInputError(f"the model cannot be served: {in_words(error)}") from error

    def _build_engine(self, staged: StagedVersion) -> None:
        files = dict(staged.model_files)
        self._tokenizer = build_tokenizer(files)
        self._vision = read_processor(files, read_config(files), self._tokenizer)
        ends = end_tokens(files, self._tokenizer)
        self._text_of = ResponseText(self._tokenizer, self._recipe.keep_special_tokens, ends)
        self._closing_token = closing_token(self._tokenizer, ends)
        if self._recipe.environment:
            check_continuation(self._tokenizer, ends, self._recipe.environment.roles())
        self._num_embeddings = num_embeddings(json.loads(files["config.json"]))
        spec = EngineSpec(
            model_files=files,
            policy=staged.manifest.version,
            tensors=staged.tensors,
            deliver=self._deliver,
            max_running=self._recipe.max_running,
            kv_cache_bytes=self._settings.kv_cache_bytes,
            options=self._recipe.engine,
            device=self._settings.device,
        )
        hybrid = self._settings.hybrid
        self._engine = HybridEngine(spec, DeviceLock(hybrid)) if hybrid else make_engine(spec)

    # Prompts in, trajectories out.

    async def hand_back(self) -> None:
        """Ends what the engine has in hand where it is, and returns when that is stored on the bus for others."""
        self._is_leaving = True
        if self._engine:
            self._engine.interrupt(list(self._results))
        if self._publishing:
            await asyncio.wait(self._publishing)

    def _deliver(self, batch: Sequence[Generated]) -> None:
        """On the engine's thread."""
        self._loop.call_soon_threadsafe(self._take_results, batch)

    async def _watch(self) -> None:
        """Releases what is in hand while the engine is stuck; takes it back if no other has taken it meanwhile."""
        detector = StallDetector()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            was_stuck, self._is_stuck = self._is_stuck, detector.is_stuck(bool(self.doing), self.progress)
            if self._is_stuck and not was_stuck:
                logger.error("%s: the engine is stuck; its %d groups go to others", self.run_id, len(self._held))
            elif was_stuck and not self._is_stuck:
                logger.warning("%s: the engine makes progress again", self.run_id)
                async with self._changed:
                    self._changed.notify_all()

    async def _take_groups(self, tasks: asyncio.TaskGroup) -> None:
        share = max(1, self._recipe.max_running // (SHARES * self._recipe.group_size))
        consumer = subjects.rollout_consumer(self.run_id, self._policy)
        async for batch in self._bus.deliveries(consumer, RolloutTask, share, lambda: not self._is_stuck):
            for delivery in batch:
                if held := self._held.get(delivery.name):
                    held.continue_as(delivery)
                    continue
                self._held[delivery.name] = delivery
                self._num_in_hand += len(delivery.message.sample_indices)
                tasks.create_task(self._sample_group(delivery))
            async with self._changed:
                await self._changed.wait_for(self._has_room)

    def _has_room(self) -> bool:
        return self._num_in_hand < self._recipe.max_running and not self._is_stuck

    async def _sample_group(self, delivery: Delivery[RolloutTask]) -> None:
        task = delivery.message
        num_samples = len(task.sample_indices)
        running_samples.add(num_samples, {"run": self.run_id})
        ids = [str(SampleId(task.group_id, index)) for index in task.sample_indices[:MAX_SAMPLES]]
        try:
            async with buses.settled(delivery, self.run_id, ids if task.run_id == self.run_id else []):
                check_task(self.run_id, task, self._num_embeddings)
                with tracer.start_as_current_span("rollout", delivery.context, attributes={"group": task.group_id}):
                    async with self._door.through(delivery, lambda: self._serves(task)):
                        await self._publish_group(delivery)
            self._service.worked()
        except asyncio.CancelledError:
            await delivery.retry(HAND_OVER_S)  # this worker gives the run up, and is no longer listening by then
            raise
        finally:
            running_samples.add(-num_samples, {"run": self.run_id})
            del self._held[delivery.name]
            async with self._changed:
                self._num_in_hand -= num_samples
                self._changed.notify_all()

    def _is_broken(self) -> bool:
        return self._engine is None or (self._engine.stopped.done() and self._engine.stopped.exception() is not None)

    def _serves(self, task: RolloutTask) -> bool:
        return self._policy is not None and self._policy.number >= task.policy.number

    async def _publish_group(self, delivery: Delivery[RolloutTask]) -> None:
        """Returns when every trajectory of the group is stored on the bus. InvalidInputError: it cannot be sampled."""
        task = delivery.message
        assert self._engine is not None
        prompt = await self._read_prompt(task, self._engine.max_context)
        table = environment_of(task.prompt, self._recipe.environment)
        rollouts = [self._rollout(task, index, prompt, table) for index in task.sample_indices]
        samples = (self._publish_sample(delivery, rollout, table) for rollout in rollouts)
        publishing = asyncio.gather(*samples)
        self._publishing.add(publishing)
        try:
            await publishing
        finally:
            self._publishing.discard(publishing)

    async def _read_prompt(self, task: RolloutTask, max_context: int) -> ReadPrompt:
        """The task's prompt as the policy reads it. InvalidInputError: it cannot; NotFoundError: an image is gone."""
        if not task.prompt.images and task.HasField("unfinished"):
            return ReadPrompt(unpack(task.unfinished.prompt_tokens))
        data = [] if self._vision is None else [await self._images.get(each.digest) for each in task.prompt.images]
        if task.HasField("unfinished"):
            tokens = unpack(task.unfinished.prompt_tokens)
            return await asyncio.to_thread(reread_prompt, task.prompt, tokens, self._vision, data)
        given = task.prompt, self._tokenizer, max_context, self._vision, data
        read = await asyncio.to_thread(read_prompt, *given) if data else read_prompt(*given)
        check_ids(read.tokens.tolist(), self._num_embeddings, f"prompt {task.prompt.id}")
        return read

    async def _publish_sample(
        self, delivery: Delivery[RolloutTask], rollout: Rollout, table: EnvironmentBase | None
    ) -> None:
        """At once when it ended: a long sample holds up no other of its group. Nor does one that fails."""
        try:
            sample = await self._drawn(rollout, table)
            if sample.ending in UNFINISHED:
                stage, subject, digest = "partial", subjects.partial_subject(self.run_id), digest_of(sample)
            else:
                stage, subject = "finished", subjects.finished_subject(self.run_id)
                whole = await self._bus.keep_whole(sample)
                sample, digest = text_of(sample, whole), whole.digest
            number = sample.whole.sequence
            message_id = StageId(rollout.sample_id, stage, sample.round, number, digest[:DIGEST_CHARS])
            await self._bus.publish(subject, sample, str(message_id))
        except UnavailableError:
            raise
        except Exception as error:  # what the tokens, the tokenizer and the environment raise is this sample's failure
            if not isinstance(error, PeriluneError):
                logger.warning("%s failed", rollout.sample_id, exc_info=True)
            seal = delivery.message.prompt.seal
            await self._bus.bury(delivery.raw, in_words(error), self.run_id, [str(rollout.sample_id)], seal)

    async def _drawn(self, rollout: Rollout, table: EnvironmentBase | None) -> trajectory.Trajectory:
        """The sample, when it has ended or spent its budget; `table` is its environment's."""
        try:
            while rollout.ending is None:
                generated = await self.generate(rollout.next_sample())
                if generated.error:
                    raise InvalidInputError(generated.error)
                rollout.take(generated)
                if rollout.ending is None and table:
                    await ask(rollout, rollout.ask_environment, table, self._settings)
                if self._is_leaving and rollout.ending is None:
                    rollout.ending = trajectory.ENDING_ABORTED
            if rollout.wants_outcome and table:
                await ask(rollout, rollout.ask_outcome, table, self._settings)
            if self._teacher and rollout.is_trained_on:
                assert self._engine is not None
                assert self._policy is not None
                await self._teacher.judge(rollout, self._engine, self._policy, len(self._tokenizer))
        finally:
            await rollout.close()
        return rollout.trajectory()

    async def _warn(self, text: str) -> None:
        """Tells the run what it should know: an event, which the view and the page show."""
        now = time.time_ns()
        event = Event(run_id=self.run_id, time_unix_ns=now, source=self._service.id, kind="warning", text=text)
        message_id = event_id(event.run_id, event.source, f"{event.kind}-{now}")
        await self._bus.publish_event(event, message_id)

    async def generate(self, sample: SampleRequest) -> Generated:
        """Has a sample, of the bus or of another caller, drawn by the engine."""
        assert self._engine is not None
        result: asyncio.Future[Generated] = self._loop.create_future()
        self._results[sample.id] = result
        self._to_submit.append(sample)
        if len(self._to_submit) == 1:
            self._loop.call_soon(self._submit)  # together with the others of its group, which share its prompt
        return await result

    def _submit(self) -> None:
        assert self._engine is not None
        samples, self._to_submit = self._to_submit, []
        self._engine.submit(samples)

    def _take_results(self, batch: Sequence[Generated]) -> None:
        """On the event loop: what the engine delivered. A group that was given up is no longer waited for."""
        for generated in batch:
            result = self._results.pop(generated.sample.id)
            if not result.done():
                result.set_result(generated)
            num_tokens = sum(len(span.tokens) for span in generated.spans)
            generated_tokens.add(num_tokens, {"run": self.run_id})

    def _rollout(self, task: RolloutTask, index: int, prompt: ReadPrompt, table: EnvironmentBase | None) -> Rollout:
        assert self._engine is not None
        context = self._engine.max_context
        rollout = Rollout(task, index, prompt, self._tokenizer, context, self._text_of, self._closing_token)
        if table:
            rollout.meet(make_environment(table, self._settings), table.max_turns)
        return rollout


async def _raise_failure(engine: Engine) -> None:
    """An engine that broke ends its worker: its samples go to others."""
    await asyncio.wrap_future(engine.stopped)
