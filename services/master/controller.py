"""One run, driven from version to version (k1.5 §2.6.1)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from opentelemetry.context import Context

from perilune.api.master.v1.master_pb2 import Version
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_EVALUATE, PURPOSE_TRAIN, PolicyVersion
from perilune.bus import MASTER_CONSUMER, REWARD_CONSUMER, Bus, prompt_subject, rollout_consumer
from perilune.errors import StateError
from perilune.recipe import Recipe
from perilune.telemetry import headers_of, tracer
from services.master.dispatch import evaluation_groups, task_for, training_groups
from services.master.prompts import PromptSet
from services.master.sampling import draw
from services.master.signal import Signal
from services.master.store import Group, Store

logger = logging.getLogger(__name__)

QUIET_S = 30.0  # so long without news before the bus is asked whether a message was lost


class Controller:
    """The iterations of one run.

    Consumes committed versions and recorded scores; produces prompts on the bus, closed batches and evaluations;
    waits for the fleet and for the trainer; is unblocked by `changed`, which the intake and the commits notify.
    All that it knows is in the database: it can be dropped at any instant and made anew.
    """

    def __init__(self, run_id: str, recipe: Recipe, prompts: PromptSet, store: Store, bus: Bus, changed: Signal):
        self._run_id, self._recipe, self._prompts = run_id, recipe, prompts
        self._store, self._bus, self._changed = store, bus, changed
        self.num_closed = 0  # iterations whose batch can be trained on
        self.is_last = False  # all iterations are trained and only the final evaluation is left
        self._rollout_seconds: dict[int, float] = {}
        self._planned: tuple[int, list[Group]] | None = None  # ahead, while the trainer works

    async def drive(self) -> None:
        """Runs every iteration that is left, and the final evaluation. StateError if the run cannot go on."""
        await self._bus.declare_consumer(rollout_consumer(self._run_id))
        while True:
            policy = await self._store.newest_version(self._run_id)
            if policy is None:
                raise StateError(f"{self._run_id} has no version to sample from")
            self.num_closed = policy.number
            self.is_last = policy.number == self._recipe.trainer.num_iterations
            await self._sample(policy)
            if self.is_last:
                await self._bus.delete_consumer(rollout_consumer(self._run_id))
                return
            await self._close(policy.number)
            self._planned = policy.number + 1, await self._plan(policy.number + 1)
            await self._wait_for_commit_after(policy)

    def add_metrics(self, version: Version) -> None:
        """Adds what only the master knows to the metrics of the version that came of an iteration."""
        seconds = self._rollout_seconds.pop(version.policy.number - 1, None)
        if seconds is not None:
            version.metrics["rollout_seconds"] = seconds

    async def _sample(self, policy: PolicyVersion) -> None:
        """Sends out an iteration's groups and held-out problems, and waits until something came of each."""
        started = time.monotonic()
        iteration = policy.number
        planned_here = self._planned is not None and self._planned[0] == iteration
        if not planned_here and await self._groups(iteration):
            await self._dispatch_missing(policy)
        else:
            await self._dispatch_new(policy)
        while True:
            seen = self._changed.count
            if not await self._store.num_missing(self._run_id, iteration):
                break
            if not await self._changed.wait(seen, QUIET_S) and await self._nothing_on_the_bus():
                logger.warning("%s: samples of iteration %d are on no queue; asking again", self._run_id, iteration)
                await self._dispatch_missing(policy)
        if self._recipe.evaluates_at(iteration):
            await self._store.evaluate(self._run_id, policy)
        self._rollout_seconds[iteration] = time.monotonic() - started

    async def _groups(self, iteration: int) -> list[Group]:
        evaluation = await self._store.groups(self._run_id, iteration, PURPOSE_EVALUATE)
        return evaluation + await self._store.groups(self._run_id, iteration, PURPOSE_TRAIN)

    async def _plan(self, iteration: int) -> list[Group]:
        """The groups of an iteration; the same whenever it is asked for, once those before it are scored."""
        recipe, groups = self._recipe, []
        if recipe.evaluates_at(iteration):
            num_problems = min(recipe.evaluation.num_problems, self._prompts.num_heldout)
            groups += evaluation_groups(self._run_id, iteration, recipe.evaluation.modes, num_problems)
        if iteration < recipe.trainer.num_iterations:
            needs_rates = recipe.sampling.strategy == "prioritized"
            indices = draw(
                recipe.sampling,
                iteration,
                num_draws=recipe.rollout.prompts_per_iteration,
                num_prompts=self._prompts.num_train,
                seed=recipe.seed,
                success_rates=await self._store.success_rates(self._run_id) if needs_rates else {},
                difficulty=self._difficulty,
            )
            groups += training_groups(self._run_id, iteration, indices, recipe.rollout.group_size)
        return groups

    def _difficulty(self, index: int) -> float:
        label = self._recipe.sampling.difficulty_label
        value = self._prompts.train(index).labels.get(label)
        try:
            return float(value or "")
        except ValueError as error:
            raise StateError(
                f"sampling.difficulty_label: prompt {index} has no number under {label!r} (it has {value!r}); "
                "name the key in prompts.labels"
            ) from error

    async def _dispatch_new(self, policy: PolicyVersion) -> None:
        """Writes an iteration's groups, then publishes them."""
        iteration, groups = self._planned or (-1, [])
        if iteration != policy.number:
            groups = await self._plan(policy.number)
        traces = [new_trace(group.id) for group in groups]
        groups = [
            replace(group, num_dispatches=1, traceparent=trace.get("traceparent", ""))
            for group, trace in zip(groups, traces, strict=True)
        ]
        await self._store.add_groups(groups)
        await self._publish([(group, range(group.num_samples)) for group in groups], traces, policy)

    async def _dispatch_missing(self, policy: PolicyVersion) -> None:
        """Publishes again what an iteration still waits for, after a restart."""
        missing = await self._store.missing_samples(self._run_id, policy.number)
        groups = [group for group in await self._groups(policy.number) if group.id in missing]
        traces = [new_trace(group.id) for group in groups]
        traceparents = [trace.get("traceparent", "") for trace in traces]
        await self._store.mark_dispatched(dict(zip([group.id for group in groups], traceparents, strict=True)))
        again = [replace(group, num_dispatches=group.num_dispatches + 1) for group in groups]
        await self._publish([(group, missing[group.id]) for group in again], traces, policy)

    async def _publish(
        self, wanted: Sequence[tuple[Group, Sequence[int]]], traces: Sequence[dict[str, str]], policy: PolicyVersion
    ) -> None:
        subject = prompt_subject(self._run_id)
        await asyncio.gather(
            *(
                self._bus.publish(
                    subject,
                    task_for(group, sample_indices, policy, self._recipe, self._prompts),
                    message_id=f"{group.id}/{group.num_dispatches}",
                    headers=trace,
                )
                for (group, sample_indices), trace in zip(wanted, traces, strict=True)
            )
        )

    async def _nothing_on_the_bus(self) -> bool:
        consumers = (rollout_consumer(self._run_id), REWARD_CONSUMER, MASTER_CONSUMER)
        return not any([await self._bus.num_unfinished(consumer) for consumer in consumers])

    async def _close(self, iteration: int) -> None:
        """Decides what of an iteration is trained on, and lets the trainer have it."""
        values = await self._store.scored_values(self._run_id, iteration)
        if not values:
            reasons = await self._store.death_reasons(self._run_id, iteration)
            if reasons:
                raise StateError(f"every sample of iteration {iteration} was given up; most often: {reasons[0]}")
        drop_uniform = self._recipe.trainer.drop_uniform_groups
        filtered = [group for group, scores in values.items() if not is_trainable(scores, drop_uniform=drop_uniform)]
        await self._store.mark_filtered(filtered)
        self.num_closed = iteration + 1
        self._changed.notify()

    async def _wait_for_commit_after(self, policy: PolicyVersion) -> None:
        while True:
            seen = self._changed.count
            newest = await self._store.newest_version(self._run_id)
            if newest is not None and newest.number > policy.number:
                return
            await self._changed.wait(seen, QUIET_S)


def new_trace(group_id: str) -> dict[str, str]:
    """Headers of a trace that begins here and follows the group's samples to the version they end in."""
    with tracer.start_as_current_span("dispatch", context=Context(), attributes={"perilune.group": group_id}):
        return headers_of()


def is_trainable(scores: list[float], *, drop_uniform: bool) -> bool:
    """A group of one has nothing to be compared with; one of equal scores prefers none of its samples."""
    return len(scores) > 1 and not (drop_uniform and max(scores) == min(scores))
