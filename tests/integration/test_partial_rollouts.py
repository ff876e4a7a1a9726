"""Unfinished trajectories at the master: saved, continued, counted; through restarts and duplicates."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import (
    ENDING_ABORTED,
    ENDING_BUDGET,
    PURPOSE_EVALUATE,
    Segment,
    Trajectory,
)
from perilune.codec import num_response_tokens, pack
from perilune.recipe import Recipe, check_recipe
from perilune.runtime.bus import Bus
from perilune.runtime.subjects import partial_subject, rollout_consumer, scored_subject
from tests.integration.test_master import Master, answer_to, master_on, trainer_of

BUDGET = 10


def recipe(trainer: dict[str, Any] | None = None, **rollout: Any) -> Recipe:
    table = {"prompts_per_iteration": 3, "group_size": 2, "budget_tokens": BUDGET} | rollout
    return check_recipe(
        {
            "name": "test",
            "model": {"path": "unused"},
            "prompts": {"source": "task", "name": "search", "num_train": 100, "num_heldout": 2},
            "rollout": table,
            "reward": {"graders": [{"name": "exact"}]},
            "trainer": {"num_iterations": 4} | (trainer or {}),
            "evaluation": {"num_problems": 1, "modes": ["greedy"]},
        }
    )


def length_of(task: RolloutTask, index: int) -> int:
    """Tokens that a sample needs in the end: every third group has one of 35, the others have 4 and 5."""
    position = int(task.group_id.rsplit(".", 1)[1])
    return 35 if position == 0 and index == 0 and task.purpose != PURPOSE_EVALUATE else 4 + index


class Fleet:
    """Writes what it is asked for, token n being n, and remembers it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.tasks: list[RolloutTask] = []
        self.num_written = 0

    async def play(self) -> None:
        async for deliveries in self._bus.deliveries(rollout_consumer("run"), RolloutTask):
            for delivery in deliveries:
                self.tasks.append(delivery.message)
                for index in delivery.message.sample_indices:
                    await self.write(delivery.message, index)
                await delivery.ack()

    async def write(self, task: RolloutTask, index: int) -> None:
        answer = answer_to(task, index)
        sample = answer.trajectory
        sample.round = task.unfinished.round
        del sample.segments[:]
        sample.segments.extend(task.unfinished.segments)
        start, end = num_response_tokens(sample), length_of(task, index)
        stop = min(end, start + task.budget_tokens) if task.budget_tokens else end
        sample.segments.append(Segment(policy=task.policy, tokens=pack(np.arange(start, stop, dtype=np.int32))))
        self.num_written += stop - start
        if stop < end:
            await self.save(sample, ENDING_BUDGET)
        else:
            await self._bus.publish(scored_subject("run"), answer, f"{sample.id}/scored")

    async def save(self, sample: Trajectory, ending: int) -> None:
        sample.ending = ending  # type: ignore[assignment]
        await self._bus.publish(partial_subject("run"), sample, f"{sample.id}/partial-{sample.round}")


@asynccontextmanager
async def fleet_on(bus: Bus) -> AsyncIterator[Fleet]:
    fleet = Fleet(bus)
    playing = asyncio.create_task(fleet.play())
    yield fleet
    playing.cancel()


def tokens_of(batch: list[m.ScoredGroup]) -> dict[str, list[int]]:
    return {
        sample.trajectory.id: [
            number
            for segment in sample.trajectory.segments
            for number in np.frombuffer(segment.tokens.data, np.int32).tolist()
        ]
        for group in batch
        for sample in group.samples
    }


async def run_to_end(master: Master, num_iterations: int, first: int = 0) -> list[list[m.ScoredGroup]]:
    batches = []
    for iteration in range(first, num_iterations):
        batch = await master.batch(iteration)
        batches.append(batch)
        await master.commit(iteration + 1, num_samples=sum(len(group.samples) for group in batch))
    return batches


async def test_an_unfinished_sample_goes_on_in_later_iterations_and_its_group_with_it(
    nats_url: str, tmp_path: Path
) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(recipe())
        async with trainer_of(master), fleet_on(bus) as fleet:
            await master.commit(0)
            batches = await run_to_end(master, 4)
            run = await master.until(m.RUN_STATE_FINISHED)
    # 35 tokens at 10 an iteration: the first groups' long samples end in the fourth; the last iteration ends them all.
    assert [sorted(group.group_id for group in batch) for batch in batches] == [
        ["run.0.1", "run.0.2"],
        ["run.1.1", "run.1.2"],
        ["run.2.1", "run.2.2"],
        ["run.0.0", "run.1.0", "run.2.0", "run.3.0", "run.3.1", "run.3.2"],
    ]
    long = batches[3][0].samples[0].trajectory
    assert [segment.policy.number for segment in long.segments] == [0, 1, 2, 3]
    found = {key: tokens for batch in batches for key, tokens in tokens_of(batch).items()}
    assert found["run.0.0/0"] == list(range(35))
    # Every token that was written is in one batch, and in one only.
    assert sum(map(len, found.values())) == fleet.num_written - sum(
        length_of(task, 0) for task in fleet.tasks if task.purpose == PURPOSE_EVALUATE
    )
    assert (run.ledger.dispatched, run.ledger.trained, run.ledger.in_flight) == (24, 24, 0)
    assert run.ledger.balanced
    assert [task.budget_tokens for task in fleet.tasks if task.iteration == 3] == [0] * 3


async def test_old_tokens_are_never_older_than_the_recipe_allows(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(recipe({"segments": "all", "num_iterations": 5}, max_staleness=1))
        async with trainer_of(master), fleet_on(bus):
            await master.commit(0)
            batches = await run_to_end(master, 5)
            run = await master.until(m.RUN_STATE_FINISHED)
    for iteration, batch in enumerate(batches):
        ages = [iteration - s.policy.number for g in batch for x in g.samples for s in x.trajectory.segments]
        assert max(ages) == (0 if iteration == 0 else 1)
    assert run.ledger.balanced
    assert run.ledger.stale == 0


async def test_sampling_runs_ahead_as_far_as_it_may(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(
            recipe({"segments": "all", "num_iterations": 5}, budget_tokens=None, max_staleness=2, asynchronous=True)
        )
        async with trainer_of(master), fleet_on(bus):
            await master.commit(0)
            first = await master.batch(0)
            assert (await master.run()).ledger.dispatched == 3 * 3 * 2  # (η + 0 + 1) groups of two, B = 3
            await master.commit(1, num_samples=sum(len(group.samples) for group in first))
            batches = [first, *await run_to_end(master, 5, first=1)]
            run = await master.until(m.RUN_STATE_FINISHED)
    assert [len(batch) for batch in batches] == [3] * 5
    versions = [{s.policy.number for g in batch for x in g.samples for s in x.trajectory.segments} for batch in batches]
    assert versions == [{0}, {0}, {0}, {1}, {2}]
    assert run.ledger.balanced


async def test_a_killed_master_goes_on_with_what_was_saved(nats_url: str, tmp_path: Path) -> None:
    """Killed while samples are saved and others are awaited: nothing is asked for twice that was written once."""
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(recipe())
        async with trainer_of(master), fleet_on(bus):
            await master.commit(0)
            batch = await master.batch(0)
            await master.commit(1, num_samples=sum(len(group.samples) for group in batch))
            await master.batch(1)
            assert (await master.run()).ledger.in_flight == 4 + 4  # two groups with a long sample, and the batch
            master.process.send_signal(signal.SIGKILL)
            await master.process.wait()
    async with (
        master_on(nats_url, tmp_path) as master,
        Bus.connect(nats_url, "fleet") as bus,
        trainer_of(master),
        fleet_on(bus) as fleet,
    ):
        await master.commit(1)
        batches = await run_to_end(master, 4, first=1)
        run = await master.until(m.RUN_STATE_FINISHED)
    assert sorted(group.group_id for group in batches[0]) == ["run.1.1", "run.1.2"]  # as it was settled before
    asked_again = {(task.group_id, task.unfinished.round) for task in fleet.tasks if task.HasField("unfinished")}
    assert {("run.0.0", 2), ("run.0.0", 3)} <= asked_again
    assert tokens_of(batches[2])["run.0.0/0"] == list(range(35))
    assert (run.ledger.dispatched, run.ledger.trained, run.ledger.balanced) == (24, 24, True)


async def test_what_a_stopping_worker_gives_back_goes_out_at_once_and_late_duplicates_count_for_nothing(
    nats_url: str, tmp_path: Path
) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(recipe({"num_iterations": 1}, prompts_per_iteration=1, budget_tokens=None))
        async with trainer_of(master):
            await master.commit(0)
            first: RolloutTask | None = None
            async for deliveries in bus.deliveries(rollout_consumer("run"), RolloutTask):
                for delivery in deliveries:
                    if delivery.message.purpose == PURPOSE_EVALUATE:
                        await Fleet(bus).write(delivery.message, 0)
                    else:
                        first = delivery.message
                    await delivery.ack()
                if first:
                    break
            half = answer_to(first, 0).trajectory
            await Fleet(bus).save(half, ENDING_ABORTED)
            async with fleet_on(bus) as fleet:
                await Fleet(bus).write(first, 1)
                while not fleet.tasks:
                    await asyncio.sleep(0.02)
                (again,) = fleet.tasks
                assert (again.unfinished.round, list(again.sample_indices)) == (1, [0])
                assert again.unfinished.segments == half.segments
                late = answer_to(first, 0)  # of the round before
                late.score.value = 7
                await bus.publish(scored_subject("run"), late, "late")
                batch = await master.batch(0)
        assert [sample.score.value for group in batch for sample in group.samples] == [0, 1]
        assert (await master.run()).ledger.balanced
