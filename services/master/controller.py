"""One run, driven from version to version (k1.5 §2.6.1)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from opentelemetry.context import Context

from perilune.api.master.v1.master_pb2 import Version
from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import ENDING_REPETITION, PURPOSE_EVALUATE, PolicyVersion, Trajectory
from perilune.errors import InvalidInputError, StateError
from perilune.ids import MessageId, RestId, SampleId, TaskId
from perilune.objectives.shaping import Response
from perilune.recipe import Recipe
from perilune.runtime.blobs import Blobs
from perilune.runtime.bus import SEAL_HEADER, Bus
from perilune.runtime.subjects import (
    MASTER_CONSUMER,
    PARTIAL_CONSUMER,
    REWARD_CONSUMER,
    prompt_subject,
    rollout_consumer,
)
from perilune.runtime.telemetry import headers_of, tracer
from services.master import schedule
from services.master.budgets import budgets_to_settle
from services.master.dispatch import evaluation_groups, task_for, training_groups
from services.master.notification import Notification
from services.master.prompts import PromptSet
from services.master.records import Awaited, Graded, Group
from services.master.samplers import open_sampler
from services.master.samplers.sampler import Sampler, draw, needed, set_aside
from services.master.samplers.statistics import Statistic, statistics_of
from services.master.schedule import Progress
from services.master.seals import seal_of
from services.master.store import Store
from services.master.tables import SampleState

logger = logging.getLogger(__name__)

DISPATCHED_AT_ONCE = 64  # groups: the fleet works on the first of many while the others are written
QUIET_S = 10.0  # so long without news before the bus is asked whether a message was lost


class Controller:
    """The iterations of one run.

    Consumes committed versions and recorded scores; produces prompts on the bus, settled batches and evaluations;
    waits for the fleet and for the trainer; is unblocked by `changed`, which the intake and the commits notify.
    All that it knows is in the database: it can be dropped at any instant and made again. What is sent out when, and
    when a batch is ready, `schedule.py` decides.
    """

    def __init__(
        self,
        run_id: str,
        recipe: Recipe,
        prompts: PromptSet,
        store: Store,
        bus: Bus,
        blobs: Blobs | None,
        changed: Notification,
    ):
        self._run_id, self._recipe, self._prompts = run_id, recipe, prompts
        self._store, self._bus, self._blobs, self._changed = store, bus, blobs, changed
        self._sampler: Sampler | None = None
        self.num_closed = 0  # iterations whose batch can be trained on
        self.is_last = False  # all iterations are trained and only the final evaluation is left
        self._rollout_seconds: dict[int, float] = {}
        self._num_set_aside = 0  # prompts that are no longer drawn
        self._is_bus_empty = False  # it has lost what was on it, and what is awaited has to be asked for again
        # Made ready while the trainer works:
        self._planned: tuple[int, list[Group]] | None = None
        self._lengths: Mapping[str, Mapping[int, int]] = {}

    async def drive(self) -> None:
        """Runs every iteration that is left, and the final evaluation. StateError if the run cannot go on."""
        policy = await self._store.newest_version(self._run_id)
        if policy is None:
            raise StateError(f"{self._run_id} has no version to sample from")
        consumer = rollout_consumer(self._run_id, policy)
        self._reach(policy)
        await self._dispatch_missing(policy)  # what an earlier controller waited for may be on no queue any more
        while True:
            if not await self._store.is_closed(self._run_id, policy.number):
                await self._sample(policy)
            if self.is_last:
                await self._bus.delete_consumer(consumer)
                return
            self.num_closed = policy.number + 1
            self._changed.notify()
            self._planned = policy.number + 1, await self._plan(policy.number + 1)
            self._lengths = await self._store.lengths(self._run_id)
            policy = await self._commit_after(policy)
            self._reach(policy)

    def dispatch_again(self) -> None:
        """Has all that is awaited asked for again: the bus has lost it."""
        self._is_bus_empty = True
        self._changed.notify()

    def _reach(self, policy: PolicyVersion) -> None:
        self.num_closed = policy.number
        self.is_last = policy.number >= self._recipe.last_version

    def add_metrics(self, version: Version) -> None:
        """Adds what only the master knows to the metrics of the version that came of an iteration.

        The lengths of all samples that had ended when they were last counted, and of those that had been trained on:
        were long ones dropped or starved, the second would stay behind the first.
        """
        seconds = self._rollout_seconds.pop(version.policy.number - 1, None)
        if seconds is not None:
            version.metrics["rollout_seconds"] = seconds
        if self._num_set_aside:
            version.metrics["prompts_set_aside"] = self._num_set_aside
        for name, lengths in self._lengths.items():
            if lengths:
                version.metrics[f"{name}_length_mean"] = mean_length(lengths)
                version.metrics[f"{name}_length_p90"] = float(length_quantile(lengths, 0.9))

    async def _sample(self, policy: PolicyVersion) -> None:
        """Goes on with unfinished samples, sends out new groups and held-out problems, and settles the batch."""
        started = time.monotonic()
        version = policy.number
        await self._continue(policy, is_wanted=lambda group, sample: True)
        await self._dispatch_new(policy)
        await self._until_ready(policy)
        if self._recipe.evaluates_at(version):
            await self._store.evaluate(self._run_id, policy)
        if not self.is_last:
            await self._close(version)
        self._rollout_seconds[version] = time.monotonic() - started

    async def _until_ready(self, policy: PolicyVersion) -> None:
        """Waits until the batch can be settled; meanwhile sends out again what must not wait for the next version."""
        due = schedule.due_version(self._recipe, policy.number)
        while True:
            seen = self._changed.count
            if self._is_bus_empty:
                await self._dispatch_missing(policy)
            progress = await self._store.progress(self._run_id, policy.number, due)
            if schedule.is_ready(self._recipe, progress):
                if await self._refill(policy):
                    continue
                return
            if progress.num_partial and await self._continue_early(policy, due, progress):
                continue
            if not await self._changed.wait(seen, QUIET_S) and await self._nothing_on_the_bus(policy):
                logger.warning("%s: samples are on no queue; asking for them again", self._run_id)
                await self._dispatch_missing(policy)

    async def _refill(self, policy: PolicyVersion) -> bool:
        """Draws once more where too many groups of this iteration say nothing; false where that is not wanted."""
        recipe, version = self._recipe, policy.number
        if not recipe.rollout.max_refills or self.is_last:
            return False
        sizes = await self._store.num_groups_by_version(self._run_id)
        complete = await self._store.complete_groups(self._run_id)
        left_out = await self._left_out(complete, version)
        num_useful = sum(why is None for why in left_out.values())
        if not schedule.wants_refill(recipe, sizes.get(version, 0), num_useful):
            return False
        draw_number = sum(sizes.values()) // recipe.rollout.prompts_per_iteration
        indices = await self._draw(draw_number)
        groups = training_groups(self._run_id, draw_number, version, indices, recipe.rollout.group_size)
        await self._dispatch([group for group in groups if not await self._store.has_group(group.id)], policy)
        logger.info("%s: version %d has %d groups that say something; drew more", self._run_id, version, num_useful)
        return True

    async def _continue_early(self, policy: PolicyVersion, due: int, progress: Progress) -> int:
        """Goes on with what a stopping worker gave back and with what the batch waits for; with all that is saved, if
        all have spent their budgets and no group is complete. Returns how many samples that were.
        """
        nothing_runs = not progress.num_running and not progress.num_evaluating
        return await self._continue(
            policy,
            lambda group, sample: nothing_runs or group.iteration <= due or sample.ending == trajectory.ENDING_ABORTED,
        )

    async def _plan(self, version: int) -> list[Group]:
        """The groups that the admission rule lets out at a version, and its held-out problems."""
        recipe, groups = self._recipe, []
        size = recipe.rollout.prompts_per_iteration
        sizes = await self._store.num_groups_by_version(self._run_id)
        num_refills = schedule.num_refills(recipe, sizes)
        num_admitted = schedule.num_admitted(recipe, version, num_refills)
        for draw_number in range(sum(sizes.values()) // size, num_admitted // size):
            indices = await self._draw(draw_number)
            groups += training_groups(self._run_id, draw_number, version, indices, recipe.rollout.group_size)
        if recipe.evaluates_at(version):
            num_problems = recipe.evaluation.num_asked(self._prompts.num_heldout)
            groups += evaluation_groups(self._run_id, version, recipe.evaluation.modes, num_problems)
        return groups

    async def _draw(self, number: int) -> list[int]:
        """Prompts of the draw of that number: the same whenever it is asked for, once all before it are scored."""
        recipe = self._recipe
        if self._sampler is None:  # in a thread, as below: a million prompts take a second to look at, or to shuffle
            self._sampler = await asyncio.to_thread(open_sampler, recipe.prompts.sampler, self._prompts)
        statistics = await statistics_of(self._store, self._run_id, needed(self._sampler))
        self._note_set_aside(len(set_aside(statistics[Statistic.DEAD_GROUPS])))
        size = recipe.rollout.prompts_per_iteration
        return await asyncio.to_thread(draw, self._sampler, number, size, recipe.seed, statistics)

    def _note_set_aside(self, count: int) -> None:
        if count > self._num_set_aside:
            logger.warning(
                "%s: %d of %d prompts are set aside, for none of their samples came to anything",
                self._run_id,
                count,
                self._prompts.num_train,
            )
        self._num_set_aside = count

    async def _dispatch_new(self, policy: PolicyVersion) -> None:
        """Writes what a version lets out, then publishes it, part by part; nothing of what was sent out before."""
        version, groups = self._planned or (-1, [])
        if version != policy.number:
            groups = await self._plan(policy.number)
        if groups and await self._store.has_group(groups[0].id):
            groups = [group for group in groups if not await self._store.has_group(group.id)]
        for first in range(0, len(groups), DISPATCHED_AT_ONCE):
            await self._dispatch(groups[first : first + DISPATCHED_AT_ONCE], policy)

    async def _dispatch(self, groups: Sequence[Group], policy: PolicyVersion) -> None:
        traces = [new_trace(group.id) for group in groups]
        groups = [
            replace(group, num_dispatches=1, traceparent=trace.get("traceparent", ""))
            for group, trace in zip(groups, traces, strict=True)
        ]
        await self._store.add_groups(groups)
        await asyncio.gather(
            *(
                self._publish(group, range(group.num_samples), policy, TaskId(group.id, 1), trace)
                for group, trace in zip(groups, traces, strict=True)
            )
        )

    async def _continue(self, policy: PolicyVersion, is_wanted: Callable[[Group, Awaited], bool]) -> int:
        """Sends out unfinished samples once more, the oldest first; returns how many."""
        found = await self._store.open_groups(self._run_id, SampleState.PARTIAL)
        wanted = [(group, sample) for group, samples in found for sample in samples if is_wanted(group, sample)]
        await self._store.mark_continued([sample for _, sample in wanted])
        for group, sample in wanted:
            await self._publish_rest(group, replace(sample, round=sample.round + 1), policy)
        return len(wanted)

    async def _dispatch_missing(self, policy: PolicyVersion) -> None:
        """Publishes again what is awaited, after a restart: whole, or from where it was saved."""
        self._is_bus_empty = False
        await self._bus.declare_consumer(rollout_consumer(self._run_id, policy))
        found = await self._store.open_groups(self._run_id, SampleState.DISPATCHED)
        traces = {group.id: new_trace(group.id) for group, _ in found}
        await self._store.mark_dispatched({key: trace.get("traceparent", "") for key, trace in traces.items()})
        for group, samples in found:
            again = replace(group, num_dispatches=group.num_dispatches + 1)
            fresh = [sample.sample_index for sample in samples if not sample.round]
            if fresh:
                message_id = TaskId(group.id, again.num_dispatches)
                await self._publish(again, fresh, policy, message_id, traces[group.id])
            for sample in samples:
                if sample.round:
                    await self._publish_rest(again, sample, policy)

    async def _publish_rest(self, group: Group, sample: Awaited, policy: PolicyVersion) -> None:
        """Asks for the rest of a sample that was saved; its trace goes on."""
        payload = await self._store.partial(group.id, sample.sample_index)
        assert payload is not None  # it was saved before it was marked
        unfinished = Trajectory.FromString(payload)
        unfinished.round = sample.round
        message_id = RestId(SampleId(group.id, sample.sample_index), sample.round, group.num_dispatches)
        trace = {"traceparent": group.traceparent} if group.traceparent else {}
        await self._publish(group, [sample.sample_index], policy, message_id, trace, unfinished)

    async def _publish(
        self,
        group: Group,
        sample_indices: Sequence[int],
        policy: PolicyVersion,
        message_id: MessageId,
        trace: dict[str, str],
        unfinished: Trajectory | None = None,
    ) -> None:
        budget = schedule.budget_tokens(self._recipe, group.iteration, policy.number)
        task = task_for(group, sample_indices, policy, self._recipe, self._prompts, budget, unfinished)
        if task.prompt.images:
            await self._keep_images(group)
        task.prompt.seal = seal_of(await self._secret(), task)
        try:
            headers = trace | {SEAL_HEADER: task.prompt.seal}  # for a worker that cannot read the message
            await self._bus.publish(prompt_subject(self._run_id, policy), task, str(message_id), headers)
        except InvalidInputError as error:  # over the bus's limit: these samples end, and the run goes on
            logger.error("%s cannot be sent out: %s", group.id, error)
            await self._store.mark_dead([(group.id, index) for index in sample_indices], str(error))
            self._changed.notify()

    async def _keep_images(self, group: Group) -> None:
        """Puts the images that a prompt set draws where a worker finds them."""
        held_out = group.purpose == PURPOSE_EVALUATE
        for data in self._prompts.drawn_images(group.prompt_index, held_out=held_out):
            assert self._blobs  # which a master that drives runs has
            await self._blobs.put(data)

    async def _secret(self) -> bytes:
        secret = await self._store.secret(self._run_id)
        assert secret is not None  # the run has a row
        return secret

    async def _nothing_on_the_bus(self, policy: PolicyVersion) -> bool:
        consumers = (rollout_consumer(self._run_id, policy), REWARD_CONSUMER, MASTER_CONSUMER, PARTIAL_CONSUMER)
        return not any([await self._bus.num_unfinished(consumer) for consumer in consumers])

    async def _close(self, version: int) -> None:
        """Decides what is trained on at this version."""
        complete = await self._store.complete_groups(self._run_id)
        ages = [group.iteration for group, _ in complete]
        groups = complete[: schedule.batch_size(self._recipe, version, ages)]
        if not any(samples for _, samples in groups):
            reasons = await self._store.death_reasons(self._run_id)
            if groups and reasons:
                raise StateError(f"every sample of iteration {version} was given up; most often: {reasons[0]}")
        await self._store.close_batch(self._run_id, version, await self._left_out(groups, version))

    async def _left_out(
        self, groups: Sequence[tuple[Group, list[Graded]]], version: int
    ) -> dict[str, SampleState | None]:
        """Why each group is not trained on, by its id; None if it is."""
        budgets = await budgets_to_settle(self._store, self._run_id, self._recipe, version, groups)
        return {
            group.id: self._why_left_out(group, samples, version, budgets.get(group.prompt_index))
            for group, samples in groups
        }

    def _why_left_out(
        self, group: Group, samples: list[Graded], version: int, budget_tokens: int | None
    ) -> SampleState | None:
        if schedule.is_stale(self._recipe, group.iteration, version):
            return SampleState.STALE
        return None if is_trainable(samples, self._recipe, version, budget_tokens) else SampleState.FILTERED

    async def _commit_after(self, policy: PolicyVersion) -> PolicyVersion:
        """Waits for a newer version, and gives it."""
        while True:
            seen = self._changed.count
            if self._is_bus_empty:
                await self._dispatch_missing(policy)
            newest = await self._store.newest_version(self._run_id)
            if newest is not None and newest.number > policy.number:
                return newest
            await self._changed.wait(seen, QUIET_S)


def mean_length(lengths: Mapping[int, int]) -> float:
    """The mean of a histogram of lengths."""
    return sum(length * count for length, count in lengths.items()) / sum(lengths.values())


def length_quantile(lengths: Mapping[int, int], share: float) -> int:
    """The shortest length that at least this share of a histogram does not exceed."""
    needed = share * sum(lengths.values())
    for length in sorted(lengths):
        needed -= lengths[length]
        if needed <= 0:
            return length
    raise ValueError("no lengths")


def new_trace(group_id: str) -> dict[str, str]:
    """Headers of a trace that begins here and follows the group's samples to the version they end in."""
    with tracer.start_as_current_span("dispatch", context=Context(), attributes={"perilune.group": group_id}):
        return headers_of()


def rewards_of(
    samples: Sequence[Graded], recipe: Recipe, version: int, budget_tokens: int | None = None
) -> list[float]:
    """The rewards of a group's samples, as the recipe's objective has them at this version."""
    responses = [
        Response(sample.value, sample.num_tokens, sample.correct, sample.ending == ENDING_REPETITION, budget_tokens)
        for sample in samples
    ]
    return recipe.trainer.objective.rewards(responses, recipe.reward, version)


def is_trainable(samples: Sequence[Graded], recipe: Recipe, version: int, budget_tokens: int | None = None) -> bool:
    """Tests whether a group is trained on: a group of one has nothing to be compared with, a uniform one may be left
    out."""
    if len(samples) < 2 or not recipe.trainer.drop_uniform_groups:
        return len(samples) > 1
    return recipe.trainer.objective.prefers(rewards_of(samples, recipe, version, budget_tokens))
