"""One run on this worker: weight versions and groups come in, trajectories go out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from perilune import bus as buses
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask, RunStatus
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion, Segment, Trajectory
from perilune.bus import Bus, Delivery
from perilune.codec import pack
from perilune.errors import InvalidInputError, WeightStreamError
from perilune.fleet import report_serving
from perilune.recipe import RolloutTable
from perilune.service import Service
from perilune.telemetry import meter, tracer
from services.rollout.config import RolloutSettings
from services.rollout.engines import engine_factory
from services.rollout.engines.base import Engine, Generated, Sample, Sampling, Span
from services.rollout.prompts import build_tokenizer, prompt_tokens
from services.rollout.subscriber import StagedVersion, staged_versions

logger = logging.getLogger(__name__)

generated_tokens = meter.create_counter("perilune.rollout.tokens", "{token}", "Tokens generated")
running_samples = meter.create_up_down_counter("perilune.rollout.samples", "{sample}", "Samples in hand")

REFUSED_RETRY_S = 2.0
SHARES = 4  # a fetch takes at most this part of the engine's places, so that other workers get their share


class RunWorker:
    """Consumes the run's prompts once a version is served; produces its finished trajectories.

    Several groups are in hand at once, as many as the engine has places for. A group's message is acked when all its
    trajectories are stored on the bus; if this worker ends before, it goes to another.
    """

    def __init__(self, service: Service, bus: Bus, run_id: str, recipe: RolloutTable) -> None:
        assert isinstance(service.settings, RolloutSettings)
        self.run_id = run_id
        self._service = service
        self._settings = service.settings
        self._bus = bus
        self._recipe = recipe
        self._loop = asyncio.get_running_loop()
        self._engine: Engine | None = None
        self._tokenizer: Any = None
        self._policy: PolicyVersion | None = None
        self._num_in_hand = 0  # samples of groups that were taken and are not yet acked
        self._results: dict[str, asyncio.Future[Generated]] = {}
        self._changed = asyncio.Condition()  # a version was swapped in, or a group is done

    async def serve(self, addresses: AsyncIterator[str]) -> None:
        """Works until cancelled. `addresses`: where the run's trainer is, at first and whenever it moves.

        InvalidInputError (in a group) if no engine can serve this run's model. Whatever ends the engine is raised.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_trainer(addresses))
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

    # Weights.

    async def _follow_trainer(self, addresses: AsyncIterator[str]) -> None:
        """Subscribes to the run's trainer wherever it is; a run without one keeps the version it has."""
        async with asyncio.TaskGroup() as tasks:
            following: asyncio.Task[None] | None = None
            async for address in addresses:
                if following:
                    following.cancel()
                following = tasks.create_task(self._swap_versions(address)) if address else None

    async def _swap_versions(self, address: str) -> None:
        while True:
            try:
                async for staged in staged_versions(self.run_id, self._service.id, address, lambda: self._policy):
                    await self._swap(staged)
                    logger.info("%s: serves version %d", self.run_id, staged.manifest.version.number)
                    await report_serving(self._service, self.run_id, staged.manifest.version)
            except WeightStreamError as error:
                logger.warning("%s: a version was dropped: %s; asking again", self.run_id, error)
                await asyncio.sleep(REFUSED_RETRY_S)

    async def _swap(self, staged: StagedVersion) -> None:
        """WeightStreamError if the tensors are not this model's; what was served before then goes on."""
        policy = staged.manifest.version
        if self._engine is None:
            await asyncio.to_thread(self._build, staged)
        else:
            await asyncio.wrap_future(self._engine.load(policy, staged.tensors))
        async with self._changed:
            self._policy = policy
            self._changed.notify_all()

    def _build(self, staged: StagedVersion) -> None:
        files = dict(staged.manifest.model_files)
        self._tokenizer = build_tokenizer(files)
        self._engine = engine_factory(self._recipe.engine)(
            files,
            staged.manifest.version,
            staged.tensors,
            deliver=self._deliver,
            max_running=self._recipe.max_running,
            kv_cache_bytes=int(self._settings.kv_cache_gib * 2**30),
        )

    # Prompts in, trajectories out.

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
        except asyncio.CancelledError:
            await delivery.retry(delay_s=0)  # this worker gives the run up: to anyone, at once
            raise
        else:
            await delivery.ack()
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
        prompt = prompt_tokens(task.prompt, self._tokenizer, self._engine.max_context)
        samples = [_sample(task, index, prompt, self._engine.max_context) for index in task.sample_indices]
        results = [self._loop.create_future() for _ in samples]
        self._results.update({sample.id: result for sample, result in zip(samples, results, strict=True)})
        self._engine.submit(samples)
        async with asyncio.TaskGroup() as publishing:
            for index, result in zip(task.sample_indices, results, strict=True):
                publishing.create_task(self._publish_sample(task, index, result))

    async def _publish_sample(self, task: RolloutTask, index: int, result: asyncio.Future[Generated]) -> None:
        """At once when it ended: a long sample holds up no other of its group."""
        trajectory = self._trajectory(task, index, await result)
        await self._bus.publish(buses.finished_subject(task.run_id), trajectory, f"{trajectory.id}/finished")

    def _take_results(self, batch: Sequence[Generated]) -> None:
        """On the event loop: what the engine delivered. A group that was given up is no longer waited for."""
        for generated in batch:
            result = self._results.pop(generated.sample.id)
            if not result.done():
                result.set_result(generated)
            num_tokens = sum(len(span.tokens) for span in generated.spans)
            generated_tokens.add(num_tokens, {"run": self.run_id})

    def _trajectory(self, task: RolloutTask, index: int, generated: Generated) -> Trajectory:
        response = [token for span in generated.spans for token in span.tokens.tolist()]
        return Trajectory(
            id=trajectory_id(task, index),
            run_id=task.run_id,
            group_id=task.group_id,
            sample_index=index,
            purpose=task.purpose,
            iteration=task.iteration,
            prompt=task.prompt,
            prompt_tokens=pack(generated.sample.tokens),
            segments=[_segment(span) for span in generated.spans],
            ending=generated.ending,
            response=self._tokenizer.decode(response, skip_special_tokens=True),
            graders=task.graders,
        )


def trajectory_id(task: RolloutTask, index: int) -> str:
    return f"{task.group_id}/{index}"


def _sample(task: RolloutTask, index: int, prompt: NDArray[np.int32], max_context: int) -> Sample:
    wanted = task.sampling
    sampling = Sampling(wanted.temperature, wanted.top_p or 1.0, wanted.top_k, tuple(wanted.stop))
    # A group may be in hand twice, when it was redelivered: the engine's name for a sample is its own.
    name = f"{trajectory_id(task, index)}#{uuid4().hex}"
    return Sample(name, prompt, wanted.max_tokens or max_context, sampling, wanted.seed, index)


def _segment(span: Span) -> Segment:
    return Segment(
        policy=span.policy,
        tokens=pack(span.tokens),
        logprobs=pack(span.logprobs),
        full_logprobs=pack(span.full_logprobs),
    )


async def _raise_failure(engine: Engine) -> None:
    """An engine that broke ends its worker: its samples go to others."""
    await asyncio.wrap_future(engine.stopped)
