"""One run on this worker: weight versions and groups come in, trajectories go out."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perilune import bus as buses
from perilune.api.master.v1.master_pb2 import RunAssignment
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask, RunStatus
from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.bus import Bus, Delivery
from perilune.chat import check_ids
from perilune.codec import unpack
from perilune.errors import InvalidInputError, OverloadedError, UnavailableError, WeightStreamError
from perilune.fleet import report_serving
from perilune.hybrid import Device, SharedReceiver
from perilune.recipe import RolloutTable
from perilune.service import Service
from perilune.telemetry import meter, tracer
from perilune.weights.adapted import AdaptedReceiver
from perilune.weights.quantized import dequantized
from perilune.weights.receiver import StagedVersion
from perilune.weights.shards import ShardedReceiver
from services.rollout.config import RolloutSettings
from services.rollout.engines import engine_factory
from services.rollout.engines.base import Engine, EngineFactory, Generated, Sample
from services.rollout.engines.model import end_tokens
from services.rollout.engines.turns import TurnTakingEngine
from services.rollout.environments import make_environment
from services.rollout.prompts import build_tokenizer, num_embeddings, prompt_tokens
from services.rollout.response_text import ResponseText
from services.rollout.rollout import Rollout, trajectory_id

logger = logging.getLogger(__name__)

generated_tokens = meter.create_counter("perilune.rollout.tokens", "{token}", "Tokens generated")
running_samples = meter.create_up_down_counter("perilune.rollout.samples", "{sample}", "Samples in hand")

UNFINISHED = (trajectory.ENDING_BUDGET, trajectory.ENDING_ABORTED)
ENVIRONMENT_RETRY_S = 2.0
SHARES = 4  # a fetch takes at most this part of the engine's places, so that other workers get their share


class RunWorker:
    """Consumes the run's prompts once a version is served; produces its finished trajectories.

    Several groups are in hand at once, as many as the engine has places for. A group's message is acked when all its
    trajectories are stored on the bus; if this worker ends before, it goes to another.
    """

    def __init__(
        self,
        service: Service,
        bus: Bus,
        recipe: RolloutTable,
        run_id: str,
        weights: ShardedReceiver | AdaptedReceiver | SharedReceiver,
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
        self._tokenizer: Any = None
        self._text_of: ResponseText | None = None
        self._num_embeddings = 0
        self._policy: PolicyVersion | None = None
        self._loads: PolicyVersion | None = None  # the version that the engine is being given
        self._num_swaps = 0
        self._num_in_hand = 0  # samples of groups that were taken and are not yet acked
        self._results: dict[str, asyncio.Future[Generated]] = {}
        self._to_submit: list[Sample] = []
        self._publishing: set[asyncio.Future[list[None]]] = set()  # groups that the engine has
        self._is_leaving = False
        self._changed = asyncio.Condition()  # a version was swapped in, or a group is done

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
                tasks.create_task(_raise_failure(self._engine))
                await self._take_groups(tasks)
        finally:
            if self._engine:
                await asyncio.to_thread(self._engine.close)

    def status(self) -> RunStatus:
        status = RunStatus(run_id=self.run_id, engine=self._recipe.engine, policy=self._policy)
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
        """What the engine is at work on, for a reader; empty while it waits."""
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
        return self._engine

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def policy(self) -> PolicyVersion | None:
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
        files = dict(staged.model_files)
        self._tokenizer = build_tokenizer(files)
        ends = end_tokens(files, self._tokenizer)
        self._text_of = ResponseText(self._tokenizer, self._recipe.keep_special_tokens, ends)
        self._num_embeddings = num_embeddings(json.loads(files["config.json"]))
        # Only the torch engine has this one.
        options: dict[str, Any] = (
            {} if self._recipe.quantization == "none" else {"quantization": self._recipe.quantization}
        )
        make: EngineFactory = partial(engine_factory(self._recipe.engine), **options)
        if self._settings.hybrid:
            make = partial(TurnTakingEngine, make, Device(self._settings.hybrid))
        self._engine = make(
            files,
            staged.manifest.version,
            staged.tensors,
            deliver=self._deliver,
            max_running=self._recipe.max_running,
            kv_cache_bytes=int(self._settings.kv_cache_gib * 2**30),
            keep_context=self._recipe.context_at_swap == "keep",
        )

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

    async def _take_groups(self, tasks: asyncio.TaskGroup) -> None:
        share = max(1, self._recipe.max_running // (SHARES * self._recipe.group_size))
        async for batch in self._bus.deliveries(buses.rollout_consumer(self.run_id), RolloutTask, share):
            for delivery in batch:
                self._num_in_hand += len(delivery.message.sample_indices)
                tasks.create_task(self._sample_group(delivery))
            async with self._changed:
                await self._changed.wait_for(lambda: self._num_in_hand < self._recipe.max_running)

    async def _sample_group(self, delivery: Delivery[RolloutTask]) -> None:
        task = delivery.message
        running_samples.add(len(task.sample_indices), {"run": self.run_id})
        try:
            with tracer.start_as_current_span("rollout", delivery.context, attributes={"group": task.group_id}):
                await self._publish_group(task)
        except InvalidInputError as error:
            ids = [trajectory_id(task, index) for index in task.sample_indices]
            await delivery.reject(str(error), task.run_id, ids)
        except (UnavailableError, OverloadedError) as error:
            logger.warning("%s: %s; trying again", task.group_id, error)
            await delivery.retry(ENVIRONMENT_RETRY_S)
        except asyncio.CancelledError:
            await delivery.retry(delay_s=0)  # this worker gives the run up: to anyone, at once
            raise
        else:
            await delivery.ack()
            self._service.worked()
        finally:
            running_samples.add(-len(task.sample_indices), {"run": self.run_id})
            async with self._changed:
                self._num_in_hand -= len(task.sample_indices)
                self._changed.notify_all()

    async def _publish_group(self, task: RolloutTask) -> None:
        """Returns when every trajectory of the group is stored on the bus. InvalidInputError: it cannot be sampled."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._policy is not None and self._policy.number >= task.policy.number)
        assert self._engine is not None
        if task.HasField("unfinished"):
            prompt = unpack(task.unfinished.prompt_tokens)
        else:
            prompt = prompt_tokens(task.prompt, self._tokenizer, self._engine.max_context)
            check_ids(prompt.tolist(), self._num_embeddings, f"prompt {task.prompt.id}")
        rollouts = [self._rollout(task, index, prompt) for index in task.sample_indices]
        publishing = asyncio.gather(*(self._publish_sample(rollout) for rollout in rollouts))
        self._publishing.add(publishing)
        try:
            await publishing
        finally:
            self._publishing.discard(publishing)

    async def _publish_sample(self, rollout: Rollout) -> None:
        """At once when it ended: a long sample holds up no other of its group."""
        try:
            while rollout.ending is None:
                rollout.take(await self.generate(rollout.next_sample()))
                if rollout.ending is None:
                    await rollout.ask_environment()
                if self._is_leaving and rollout.ending is None:
                    rollout.ending = trajectory.ENDING_ABORTED
        finally:
            await rollout.close()
        sample = rollout.trajectory()
        if sample.ending in UNFINISHED:
            await self._bus.publish(buses.partial_subject(sample.run_id), sample, f"{sample.id}/partial-{sample.round}")
        else:
            await self._bus.publish(
                buses.finished_subject(sample.run_id), sample, f"{sample.id}/finished-{sample.round}"
            )

    async def generate(self, sample: Sample) -> Generated:
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

    def _rollout(self, task: RolloutTask, index: int, prompt: NDArray[np.int32]) -> Rollout:
        assert self._engine is not None
        rollout = Rollout(task, index, prompt, self._tokenizer, self._engine.max_context, self._text_of)
        if table := self._recipe.environment:
            rollout.meet(make_environment(table, self._settings), table.max_turns)
        return rollout


async def _raise_failure(engine: Engine) -> None:
    """An engine that broke ends its worker: its samples go to others."""
    await asyncio.wrap_future(engine.stopped)
