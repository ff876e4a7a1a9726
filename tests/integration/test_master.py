"""The master as a process, with a real bus and database; the trainer and the fleet are played by the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.master.v1.master_pb2_grpc import FleetServiceStub, RunServiceStub, TrainingServiceStub
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_GRADER_ERROR, SCORE_STATUS_OK, Component, Score
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import (
    ENDING_STOP,
    PURPOSE_EVALUATE,
    PURPOSE_TRAIN,
    Event,
    PolicyVersion,
    ScoredTrajectory,
    Segment,
    Trajectory,
)
from perilune.codec import pack
from perilune.errors import InvalidInputError, UnavailableError
from perilune.recipe import Recipe, check_recipe
from perilune.runtime.bus import MAX_PAYLOAD_BYTES, Bus
from perilune.runtime.service import open_channel
from perilune.runtime.subjects import event_subject, rollout_consumer, scored_subject
from services.master.registry import refuse_extension
from tests.conftest import start_nats

RECIPE = {
    "name": "test",
    "model": {"path": "unused"},
    "prompts": {"source": "task", "name": "search", "num_train": 100, "num_heldout": 5},
    "rollout": {"prompts_per_iteration": 3, "group_size": 2},
    "reward": {"graders": [{"name": "exact"}]},
    "trainer": {"num_iterations": 2},
    "evaluation": {"num_problems": 5, "modes": ["greedy"]},
}


class Master:
    """A master process, and clients of its three services."""

    def __init__(self, process: asyncio.subprocess.Process, channel: grpc.aio.Channel) -> None:
        self.process = process
        self.runs = RunServiceStub(channel)
        self.fleet = FleetServiceStub(channel)
        self.training = TrainingServiceStub(channel)
        self.lease_epoch = 0  # of the lease that `acquire` got last

    async def acquire(self, weights_address: str = "127.0.0.1:9") -> tuple[grpc.aio.UnaryStreamCall, m.Assignment]:
        """Leases the next run, as a trainer that holds it until the call is cancelled."""
        call = self.training.AcquireRun(m.AcquireRunRequest(trainer_id="t", weights_address=weights_address))
        assignment = (await asyncio.wait_for(call.read(), 60)).assignment
        self.lease_epoch = assignment.lease_epoch
        return call, assignment

    async def submit(self, recipe: Recipe, run_id: str = "run") -> None:
        await self.runs.SubmitRun(m.SubmitRunRequest(run_id=run_id, recipe_json=recipe.model_dump_json()))

    async def run(self, run_id: str = "run") -> m.Run:
        return (await self.runs.GetRun(m.GetRunRequest(run_id=run_id))).run

    async def until(self, state: m.RunState.ValueType, run_id: str = "run") -> m.Run:
        async for answer in self.runs.WatchRun(m.WatchRunRequest(run_id=run_id), timeout=180):
            if answer.run.state == state:
                return answer.run
        raise AssertionError(f"the run ended otherwise: {answer.run.reason}")

    async def commit(self, number: int, num_samples: int = 0, run_id: str = "run") -> bool:
        version = m.Version(policy=policy(number), num_samples=num_samples)
        request = m.CommitVersionRequest(run_id=run_id, version=version, lease_epoch=self.lease_epoch)
        return (await self.training.CommitVersion(request)).finished

    async def batch(self, iteration: int, run_id: str = "run") -> list[m.ScoredGroup]:
        request = m.GetBatchRequest(run_id=run_id, iteration=iteration, lease_epoch=self.lease_epoch)
        return [group async for part in self.training.GetBatch(request, timeout=60) for group in part.groups]


def policy(number: int) -> PolicyVersion:
    return PolicyVersion(number=number, digest=f"digest-{number}")


@asynccontextmanager
async def master_on(nats_url: str, home: Path) -> AsyncIterator[Master]:
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    environment = os.environ | {
        "PERILUNE_LISTEN": "127.0.0.1:0",
        "PERILUNE_NATS_URL": nats_url,
        "PERILUNE_HOME": str(home),
        "PERILUNE_READY_FILE": str(ready),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.master", env=environment)
    try:
        while not ready.exists():
            assert process.returncode is None, "the master ended before it was ready"
            await asyncio.sleep(0.02)
        async with open_channel(json.loads(ready.read_text())["address"]) as channel:
            yield Master(process, channel)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def trainer_of(master: Master) -> AsyncIterator[m.Assignment]:
    """Holds the next run's lease."""
    call, assignment = await master.acquire()
    yield assignment
    call.cancel()


def answer_to(task: RolloutTask, index: int, score: Score | None = None) -> ScoredTrajectory:
    right = index % 2
    component = Component(grader="exact", status=SCORE_STATUS_OK, value=right, weight=1)
    sample = Trajectory(
        id=f"{task.group_id}/{index}",
        run_id=task.run_id,
        group_id=task.group_id,
        sample_index=index,
        purpose=task.purpose,
        iteration=task.iteration,
        prompt=task.prompt,
        graders=task.graders,
        segments=[Segment(policy=task.policy, tokens=pack(np.arange(4 + right, dtype=np.int32)))],
        ending=ENDING_STOP,
    )
    scored = Score(status=SCORE_STATUS_OK, value=right, components=[component])
    return ScoredTrajectory(trajectory=sample, score=score or scored)


async def play_fleet(bus: Bus, run_id: str = "run", score: Score | None = None) -> None:
    """Answers every task at once: odd samples are right."""
    async for deliveries in bus.deliveries(rollout_consumer(run_id), RolloutTask):
        for delivery in deliveries:
            for index in delivery.message.sample_indices:
                answer = answer_to(delivery.message, index, score)
                await bus.publish(scored_subject(run_id), answer, f"{answer.trajectory.id}/scored")
            await delivery.ack()


@asynccontextmanager
async def fleet(bus: Bus, run_id: str = "run", score: Score | None = None) -> AsyncIterator[None]:
    player = asyncio.create_task(play_fleet(bus, run_id, score))
    yield
    player.cancel()


async def test_a_run_goes_from_prompts_to_a_balanced_ledger(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE))
        async with trainer_of(master) as assignment, fleet(bus):
            assert assignment.run_id == "run"
            assert not assignment.HasField("committed")
            assert not await master.commit(0)
            for iteration in range(2):
                batch = await master.batch(iteration)
                assert [group.group_id for group in batch] == [f"run.{iteration}.{i}" for i in range(3)]
                assert [s.score.value for group in batch for s in group.samples] == [0, 1] * 3
                assert await master.commit(iteration + 1, num_samples=6) == (iteration == 1)
            run = await master.until(m.RUN_STATE_FINISHED)
        assert (run.ledger.dispatched, run.ledger.trained, run.ledger.balanced) == (12, 12, True)
        assert (run.ledger.evaluation_dispatched, run.ledger.evaluation_scored) == (10, 10)
        assert [(e.policy.number, e.mode, e.num_problems, e.num_correct) for e in run.evaluations] == [
            (0, "greedy", 5, 0),
            (2, "greedy", 5, 0),
        ]
        request = m.ListSamplesRequest(run_id="run", purpose=PURPOSE_EVALUATE, iteration=2, mode="greedy")
        assert len((await master.runs.ListSamples(request)).samples) == 5


async def test_a_policy_with_a_name_is_sampled_under_it(nats_url: str, tmp_path: Path) -> None:
    critic = PolicyVersion(number=0, digest="d", name="critic")
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE))
        async with trainer_of(master):
            version = m.Version(policy=PolicyVersion(number=0, name="A critic"))
            request = m.CommitVersionRequest(run_id="run", version=version, lease_epoch=master.lease_epoch)
            with pytest.raises(grpc.aio.AioRpcError, match="no name of a policy"):
                await master.training.CommitVersion(request)
            request.version.policy.CopyFrom(critic)
            await master.training.CommitVersion(request)
            async for deliveries in bus.deliveries(rollout_consumer("run", critic), RolloutTask):
                if deliveries:
                    break
            assert deliveries[0].message.policy == critic
            assert deliveries[0].raw.subject == "perilune.run.prompt.critic"
            assert (await master.run()).policy == critic
        # Without its trainer, which a stop would wait for.
        await master.runs.StopRun(m.StopRunRequest(run_id="run"))
        assert await bus.num_unfinished(rollout_consumer("run", critic)) == 0


async def test_a_batch_is_the_same_after_it_was_trained(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE))
        async with trainer_of(master), fleet(bus):
            await master.commit(0)
            before = await master.batch(0)
            await master.commit(1, num_samples=6)
            assert await master.batch(0) == before
            with pytest.raises(grpc.aio.AioRpcError, match="not open yet"):
                await master.batch(5)


async def test_a_killed_master_loses_nothing(nats_url: str, tmp_path: Path) -> None:
    """Killed with half of an iteration answered; the next master asks only for the other half."""
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE | {"evaluation": {"num_problems": 1, "modes": ["greedy"]}}))
        async with trainer_of(master):
            await master.commit(0)
            answered = 0
            async for deliveries in bus.deliveries(rollout_consumer("run"), RolloutTask):
                for delivery in deliveries:
                    answer = answer_to(delivery.message, delivery.message.sample_indices[0])
                    await bus.publish(scored_subject("run"), answer, f"{answer.trajectory.id}/scored")
                    await delivery.ack()
                    answered += 1
                if answered == 4:  # three groups and one held-out problem
                    break
            while (await master.run()).ledger.in_flight and await missing(master) > 3:
                await asyncio.sleep(0.05)
            master.process.send_signal(signal.SIGKILL)
            await master.process.wait()
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        async with trainer_of(master) as assignment:
            assert assignment.committed == policy(0)
            await master.commit(0)
            asked = []
            async for deliveries in bus.deliveries(rollout_consumer("run"), RolloutTask):
                for delivery in deliveries:
                    asked += [(delivery.message.group_id, list(delivery.message.sample_indices))]
                    for index in delivery.message.sample_indices:
                        answer = answer_to(delivery.message, index)
                        await bus.publish(scored_subject("run"), answer, f"{answer.trajectory.id}/scored")
                    await delivery.ack()
                if len(asked) >= 3:
                    break
            assert sorted(asked) == [(f"run.0.{i}", [1]) for i in range(3)]
            assert sum(len(group.samples) for group in await master.batch(0)) == 6
        assert (await master.run()).ledger.balanced


async def missing(master: Master) -> int:
    scored = await master.runs.ListSamples(m.ListSamplesRequest(run_id="run", purpose=PURPOSE_TRAIN, limit=100))
    return 6 - len(scored.samples)


async def test_a_run_stops_and_resumes(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE))
        call, _ = await master.acquire()
        await master.commit(0)
        stopping = asyncio.ensure_future(master.runs.StopRun(m.StopRunRequest(run_id="run")))
        assert (await call.read()).HasField("stop")
        call.cancel()
        assert (await stopping).run.state == m.RUN_STATE_STOPPED
        with pytest.raises(grpc.aio.AioRpcError, match="not running"):
            await master.runs.StopRun(m.StopRunRequest(run_id="run"))
        await master.runs.ResumeRun(m.ResumeRunRequest(run_id="run"))
        async with trainer_of(master) as assignment, fleet(bus):
            assert assignment.committed == policy(0)
            await master.commit(0)
            assert len(await master.batch(0)) == 3


async def play_uniformly(bus: Bus, uniform_draws: set[str]) -> None:
    """Answers every task at once; all samples of these draws are right, of the others the odd ones."""
    right = Component(grader="exact", status=SCORE_STATUS_OK, value=1, weight=1)
    async for deliveries in bus.deliveries(rollout_consumer("run"), RolloutTask):
        for delivery in deliveries:
            task = delivery.message
            is_uniform = task.purpose == PURPOSE_TRAIN and task.group_id.split(".")[1] in uniform_draws
            score = Score(status=SCORE_STATUS_OK, value=1, components=[right]) if is_uniform else None
            for index in task.sample_indices:
                answer = answer_to(task, index, score)
                await bus.publish(scored_subject("run"), answer, f"{answer.trajectory.id}/scored")
            await delivery.ack()


async def test_groups_that_say_nothing_are_replaced_by_further_draws(nats_url: str, tmp_path: Path) -> None:
    """Draws 0, 3 and 4 are uniform: the first iteration draws twice, the third as often as it may, all others once."""
    rollout = {"prompts_per_iteration": 3, "group_size": 2, "max_refills": 1}
    recipe = check_recipe(RECIPE | {"rollout": rollout, "trainer": {"num_iterations": 4, "drop_uniform_groups": True}})
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(recipe)
        player = asyncio.create_task(play_uniformly(bus, {"0", "3", "4"}))
        batches = []
        async with trainer_of(master):
            await master.commit(0)
            for iteration in range(4):
                batches.append([group.group_id for group in await master.batch(iteration)])
                await master.commit(iteration + 1, num_samples=2 * len(batches[-1]))
            run = await master.until(m.RUN_STATE_FINISHED)
        player.cancel()
    assert batches == [[f"run.{draw}.{i}" for i in range(3) if draw] for draw in (1, 2)] + [
        [],
        [f"run.5.{i}" for i in range(3)],
    ]
    assert (run.ledger.dispatched, run.ledger.trained, run.ledger.filtered) == (36, 18, 18)
    assert run.ledger.balanced


async def play_lengths(bus: Bus) -> None:
    """Answers every task at once: samples are right, one token long in iteration 0 and ever longer afterwards."""
    right = Component(grader="exact", status=SCORE_STATUS_OK, value=1, weight=1)
    async for deliveries in bus.deliveries(rollout_consumer("run"), RolloutTask):
        for delivery in deliveries:
            for index in delivery.message.sample_indices:
                answer = answer_to(delivery.message, index, Score(status=SCORE_STATUS_OK, value=1, components=[right]))
                length = 1 + index + 10 * delivery.message.iteration
                answer.trajectory.segments[0].tokens.CopyFrom(pack(np.arange(length, dtype=np.int32)))
                await bus.publish(scored_subject("run"), answer, f"{answer.trajectory.id}/scored")
            await delivery.ack()


async def test_budgets_of_prompts_outlive_the_master(nats_url: str, tmp_path: Path) -> None:
    """Two prompts; iterations 0 and 2 have budgets: the median of iteration 0, of one and two tokens."""
    recipe = RECIPE | {
        "prompts": RECIPE["prompts"] | {"num_train": 2},
        "rollout": {"prompts_per_iteration": 2, "group_size": 2},
        "reward": {"graders": [{"name": "exact"}], "toggle": {"phase_iterations": 1}},
        "trainer": {"num_iterations": 3},
        "evaluation": {"num_problems": 1, "modes": ["greedy"]},
    }
    served = []
    for iterations in ((0, 1), (1, 3)):
        async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
            if not iterations[0]:
                await master.submit(check_recipe(recipe))
            player = asyncio.create_task(play_lengths(bus))
            async with trainer_of(master):
                await master.commit(iterations[0])
                for iteration in range(*iterations):
                    batch = await master.batch(iteration)
                    served.append([group.budget_tokens for group in batch if group.HasField("budget_tokens")])
                    await master.commit(iteration + 1, num_samples=4)
                assert [group.budget_tokens for group in await master.batch(0)] == [1, 1]
                if iteration == 0:
                    master.process.send_signal(signal.SIGKILL)
            player.cancel()
    assert served == [[1, 1], [], [1, 1]]


async def train_through(master: Master, run_id: str, first: int, last: int) -> list[list[str]]:
    """Plays a trainer of these iterations; gives the prompts of each batch."""
    prompts = []
    async with trainer_of(master):
        await master.commit(first, run_id=run_id)
        for iteration in range(first, last):
            batch = await master.batch(iteration, run_id)
            prompts.append([group.samples[0].trajectory.prompt.id for group in batch])
            await master.commit(iteration + 1, num_samples=6, run_id=run_id)
        await master.until(m.RUN_STATE_FINISHED, run_id)
    return prompts


async def test_a_finished_run_goes_on_with_more_iterations_as_if_they_had_been_planned(
    nats_url: str, tmp_path: Path
) -> None:
    planned = check_recipe(RECIPE | {"trainer": {"num_iterations": 4}})
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE))
        async with fleet(bus):
            before = await train_through(master, "run", 0, 2)
            run = (await master.runs.ResumeRun(m.ResumeRunRequest(run_id="run", num_iterations=4))).run
            assert (run.state, run.num_iterations) == (m.RUN_STATE_PENDING, 4)
            assert recipe_from(run) == planned
            with pytest.raises(grpc.aio.AioRpcError, match="is pending: stop it, then give it more iterations"):
                await master.runs.ResumeRun(m.ResumeRunRequest(run_id="run", num_iterations=6))
            after = await train_through(master, "run", 2, 4)
        run = await master.run()
        assert (run.ledger.dispatched, run.ledger.trained, run.ledger.balanced) == (24, 24, True)
        await master.submit(planned, "planned")
        async with fleet(bus, "planned"):
            assert before + after == await train_through(master, "planned", 0, 4)
        for wrong in (4, 3):
            with pytest.raises(grpc.aio.AioRpcError, match="has 4 already; it can only be given more"):
                await master.runs.ResumeRun(m.ResumeRunRequest(run_id="run", num_iterations=wrong))
        with pytest.raises(grpc.aio.AioRpcError, match="perilune run extend run NUM_ITERATIONS"):
            await master.runs.ResumeRun(m.ResumeRunRequest(run_id="run"))


def recipe_from(run: m.Run) -> Recipe:
    return Recipe.model_validate_json(run.recipe_json)


def test_iterations_that_would_change_the_past_are_refused() -> None:
    table = check_recipe(RECIPE | {"trainer": {"num_iterations": 2, "final_learning_rate": 1e-6}})
    with pytest.raises(InvalidInputError, match=r"trainer\.final_learning_rate over the iterations that were planned"):
        refuse_extension(table, 4, None)
    after = {"type": "warmup", "task": "search", "when": "after"}
    staged = check_recipe(RECIPE | {"trainer": {"num_iterations": 2}, "stages": [after]})
    refuse_extension(staged, 4, PolicyVersion(number=2))
    with pytest.raises(InvalidInputError, match="a stage after reinforcement learning has made version 3 already"):
        refuse_extension(staged, 4, PolicyVersion(number=3))


async def test_a_bus_that_stands_still_is_waited_for(tmp_path: Path) -> None:
    nats, nats_url = start_nats(tmp_path)
    try:
        async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
            await master.submit(check_recipe(RECIPE))
            async with trainer_of(master), fleet(bus):
                nats.send_signal(signal.SIGSTOP)
                await master.commit(0)
                with pytest.raises(UnavailableError, match="the bus does not say what rollout-run has left to do"):
                    await bus.num_unfinished(rollout_consumer("run"))
                assert not await bus.answers(0.5)
                answer = await master.runs.GetFleet(m.GetFleetRequest())
                assert [worker.kind for worker in answer.workers] == ["trainer"]
                assert answer.problem.startswith("the bus does not say how much work is left")
                nats.send_signal(signal.SIGCONT)
                assert len(await master.batch(0)) == 3
            assert (await master.run()).state == m.RUN_STATE_RUNNING
    finally:
        nats.kill()
        nats.wait()


async def test_a_run_whose_trainers_are_lost_one_after_the_other_fails_with_the_reason(
    nats_url: str, tmp_path: Path
) -> None:
    async with master_on(nats_url, tmp_path) as master:
        await master.submit(check_recipe(RECIPE))
        for lost in range(1, 12):
            async with trainer_of(master):
                if lost == 4:
                    await master.commit(0)  # a step forward: from here on they count anew
            if lost == 9:
                break
        run = await master.until(m.RUN_STATE_FAILED)
        assert run.reason == (
            "its trainers were lost 6 times, and none came beyond version 0; the last one's log says why"
        )


async def test_a_run_is_failed_for_a_reason_that_its_services_cannot_give(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master:
        await master.submit(check_recipe(RECIPE))
        request = m.StopRunRequest(run_id="run", failure="reward-1 died 6 times")
        run = (await master.runs.StopRun(request)).run
        assert (run.state, run.reason) == (m.RUN_STATE_FAILED, "reward-1 died 6 times")


async def test_a_run_that_an_earlier_version_stored_goes_on_with_the_same_draws(nats_url: str, tmp_path: Path) -> None:
    """Its sampler was in `[sampling]`, with a strategy. The curriculum's warm-up is over: three prompts are hard."""
    rows = [{"question": str(number), "answer": "1", "level": str(number / 10)} for number in range(10)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prompts = {"source": "jsonl", "path": str(tmp_path / "rows.jsonl"), "num_heldout": 1, "labels": ["level"]}
    sampler = {"warmup_iterations": 1, "difficulty_label": "level", "min_difficulty": 0.6}
    recipe = RECIPE | {"prompts": prompts | {"sampler": sampler | {"type": "curriculum"}}, "evaluation": {}}
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(recipe))
        async with trainer_of(master), fleet(bus):
            await master.commit(0)
            assert questions(await master.batch(0)) == {
                "1",
                "6",
                "7",
            }  # then a uniform draw would go on with 5, 8 and 2
    with sqlite3.connect(tmp_path / "perilune.db") as db:
        stored = json.loads(db.execute("SELECT recipe FROM runs").fetchone()[0])
        del stored["prompts"]["sampler"]
        earlier = stored | {"sampling": sampler | {"strategy": "curriculum"}}
        db.execute("UPDATE runs SET recipe = ?", [json.dumps(earlier)])
    async with (
        master_on(nats_url, tmp_path) as master,
        Bus.connect(nats_url, "fleet") as bus,
        trainer_of(master),
        fleet(bus),
    ):
        await master.commit(1, num_samples=6)
        assert questions(await master.batch(1)) == {"6", "7", "8"}


def questions(batch: list[m.ScoredGroup]) -> set[str]:
    return {group.samples[0].trajectory.prompt.messages[0].content for group in batch}


async def test_a_run_whose_prompts_have_changed_is_not_resumed(nats_url: str, tmp_path: Path) -> None:
    """An index must mean the same prompt for as long as the run lives; the master names the file, once and for all."""
    lines = [json.dumps({"question": str(number), "answer": "1"}) for number in range(8)]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(lines))
    prompts = {"source": "jsonl", "path": os.path.relpath(file), "num_heldout": 3}
    resume = m.ResumeRunRequest(run_id="run")
    async with master_on(nats_url, tmp_path) as master:
        await master.submit(check_recipe(RECIPE | {"prompts": prompts, "evaluation": {"num_problems": 3}}))
        before = await master.run()
        assert (before.prompts.num_train, before.prompts.num_heldout) == (5, 3)
        assert json.loads(before.recipe_json)["prompts"]["path"] == str(file.parent.absolute() / file.name)
        await master.runs.StopRun(m.StopRunRequest(run_id="run"))
        for changed in (lines[1:] + lines[:1], lines[:-1]):
            file.write_text("\n".join(changed))
            with pytest.raises(grpc.aio.AioRpcError, match=rf"{file.name} has changed .* was 5 rows and 3 held out"):
                await master.runs.ResumeRun(resume)
        assert (await master.run()).state == m.RUN_STATE_STOPPED
        file.write_text("\n".join(lines))
        await master.runs.ResumeRun(resume)
        file.write_text("\n".join(lines[::-1]))
    async with master_on(nats_url, tmp_path) as master:
        call = master.training.AcquireRun(m.AcquireRunRequest(trainer_id="t", weights_address="127.0.0.1:9"))
        reading = asyncio.ensure_future(call.read())
        assert f"{file} has changed since the run was submitted" in (await master.until(m.RUN_STATE_FAILED)).reason
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_trainer_whose_lease_is_over_changes_nothing(nats_url: str, tmp_path: Path) -> None:
    """Every call of its is fenced off: after another trainer took over, after a stop, after the master's restart."""

    async def refuses(master: Master, lease_epoch: int) -> None:
        async def batch(request: m.GetBatchRequest) -> None:
            await master.training.GetBatch(request).read()

        forged = [m.Version(policy=PolicyVersion(number=number, digest="forged")) for number in range(3)]
        fields = {"run_id": "run", "lease_epoch": lease_epoch}
        calls = [
            *((master.training.CommitVersion, m.CommitVersionRequest(version=v, **fields)) for v in forged),
            (master.training.FailRun, m.FailRunRequest(reason="forged", **fields)),
            (batch, m.GetBatchRequest(**fields)),
        ]
        before = await known(master)
        for call, request in calls:
            with pytest.raises(grpc.aio.AioRpcError, match=f"lease {lease_epoch} of run is over") as caught:
                await call(request)
            assert caught.value.code() == grpc.StatusCode.ABORTED
        assert await known(master) == before

    async def known(master: Master) -> tuple[object, ...]:
        run = await master.run()
        return run.state, run.reason, run.policy.number, run.policy.digest, run.ledger.balanced

    async with master_on(nats_url, tmp_path) as master:
        await master.submit(check_recipe(RECIPE))
        await refuses(master, 0)  # of no lease at all
        async with trainer_of(master) as first:
            await master.commit(0)
            with pytest.raises(grpc.aio.AioRpcError, match="not settled yet") as caught:
                await master.commit(1)  # before anything was sampled
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        async with trainer_of(master) as second:
            await refuses(master, first.lease_epoch)
            await refuses(master, second.lease_epoch + 1)  # of a lease to come
            assert (await master.run()).state == m.RUN_STATE_STARTING
            await master.commit(0)
            await refuses(master, first.lease_epoch)
        await master.runs.StopRun(m.StopRunRequest(run_id="run"))
        await refuses(master, second.lease_epoch)
        await master.runs.ResumeRun(m.ResumeRunRequest(run_id="run"))
        async with trainer_of(master) as third:
            await master.commit(0)
    async with master_on(nats_url, tmp_path) as master:
        await refuses(master, third.lease_epoch)
        async with trainer_of(master) as fourth:
            assert fourth.committed == policy(0)
            assert first.lease_epoch < second.lease_epoch < third.lease_epoch < fourth.lease_epoch
            await refuses(master, third.lease_epoch)
            await master.training.FailRun(
                m.FailRunRequest(run_id="run", reason="in earnest", lease_epoch=fourth.lease_epoch)
            )
            await refuses(master, fourth.lease_epoch)  # its verdict ended it
            assert (await master.run()).reason == "in earnest"


async def test_dead_samples_are_counted_and_the_run_goes_on(nats_url: str, tmp_path: Path) -> None:
    """Failed graders, and a message that none can read: its sample is asked for again."""
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE | {"rollout": {"prompts_per_iteration": 3, "group_size": 3}}))
        async with trainer_of(master):
            await master.commit(0)
            num_played = 0
            async for deliveries in bus.deliveries(rollout_consumer("run"), RolloutTask):
                for delivery in deliveries:
                    await play_badly(bus, delivery.message)
                    await delivery.ack()
                num_played += len(deliveries)
                if num_played == 3 + 5:  # groups and held-out problems
                    break
            async with fleet(bus):
                batch = await master.batch(0)
            assert [(g.group_id, len(g.samples)) for g in batch] == [("run.0.0", 2), ("run.0.1", 3)]
            ledger = (await master.run()).ledger
        # One sample alone has nothing to be compared with: the third group's last one is filtered.
        assert (ledger.dispatched, ledger.dead, ledger.filtered, ledger.in_flight) == (9, 3, 1, 5)
        assert ledger.balanced


async def play_badly(bus: Bus, task: RolloutTask) -> None:
    failed = Score(status=SCORE_STATUS_GRADER_ERROR, components=[Component(grader="math", status=2)])
    num_bad = {"run.0.0": 1, "run.0.1": 1, "run.0.2": 2}.get(task.group_id, 0)
    for index in task.sample_indices:
        answer = answer_to(task, index, failed if index < num_bad and task.group_id != "run.0.1" else None)
        message_id = f"{answer.trajectory.id}/scored"
        if task.group_id == "run.0.1" and index == 0:
            headers = {"Nats-Msg-Id": f"{message_id}-0~0a"}
            await bus._client.jetstream().publish(scored_subject(task.run_id), b"\xff\xff no protobuf", headers=headers)
        else:
            await bus.publish(scored_subject(task.run_id), answer, message_id)


async def test_an_iteration_of_which_nothing_is_left_fails_the_run(nats_url: str, tmp_path: Path) -> None:
    failed = Component(grader="math", status=SCORE_STATUS_GRADER_ERROR, evidence={"error": "no such grader"})
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE))
        async with trainer_of(master), fleet(bus, score=Score(status=SCORE_STATUS_GRADER_ERROR, components=[failed])):
            await master.commit(0)
            run = await master.until(m.RUN_STATE_FAILED)
        assert "no such grader" in run.reason
        assert run.ledger.dead == 6
        assert run.ledger.balanced


async def test_a_message_that_nobody_can_handle_ends_in_the_dead_letters(nats_url: str, tmp_path: Path) -> None:
    """Delivered five times and given up by the server: its samples are dead, not lost."""
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE))
        async with trainer_of(master):
            await master.commit(0)
            async for deliveries in bus.deliveries(rollout_consumer("run"), RolloutTask):
                for delivery in deliveries:
                    if delivery.message.group_id == "run.0.0":
                        await delivery.retry(delay_s=0.05)
                        continue
                    for index in delivery.message.sample_indices:
                        answer = answer_to(delivery.message, index)
                        await bus.publish(scored_subject("run"), answer, f"{answer.trajectory.id}/scored")
                    await delivery.ack()
                if (await master.run()).ledger.dead:
                    break
            assert [group.group_id for group in await master.batch(0)] == ["run.0.1", "run.0.2"]
        assert await bus.num_unfinished(rollout_consumer("run")) == 0


async def test_a_model_that_no_engine_can_sample_fails_the_run(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE))
        async with trainer_of(master):
            await master.commit(0)
            event = Event(run_id="run", source="rollout-1", kind="rollout_failed", text="no attention interface")
            await bus.publish(event_subject("run"), event, "run/rollout-1/rollout_failed")
            run = await master.until(m.RUN_STATE_FAILED)
        assert run.reason == "rollout-1 cannot sample it: no attention interface"


async def test_wrong_submissions_are_explained(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master:
        wrong = RECIPE | {"trainer": {"num_iterations": 1, "num_iteration": 2}}
        with pytest.raises(grpc.aio.AioRpcError, match="did you mean 'num_iterations'") as caught:
            await master.runs.SubmitRun(m.SubmitRunRequest(recipe_json=json.dumps(wrong)))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        unknown = {"prompts": {"source": "task", "name": "serch"}, "reward": {"graders": [{"name": "exakt"}]}}
        with pytest.raises(
            grpc.aio.AioRpcError, match=r"no task 'serch'(.|\n)*no grader 'exakt'; did you mean 'exact'"
        ):
            await master.submit(check_recipe(RECIPE | unknown))
        with pytest.raises(grpc.aio.AioRpcError, match="no run 'nothing'") as caught:
            await master.run("nothing")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_prompt_that_no_run_asked_for_is_buried(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path), Bus.connect(nats_url, "fleet") as bus:
        stray = Trajectory(id="ghost.0.0/0", run_id="ghost", group_id="ghost.0.0")
        await bus.publish(scored_subject("ghost"), ScoredTrajectory(trajectory=stray), "ghost.0.0/0/scored")
        dead = await bus._client.jetstream().pull_subscribe("perilune.dead", stream="DEAD")
        (letter,) = await dead.fetch(1, timeout=10)
        assert b"no run asked for this sample" in letter.data


async def test_the_fleet_learns_which_runs_to_serve(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master:
        call = master.fleet.Join(m.JoinRequest(worker_id="w", kind="rollout", address="here"), timeout=60)
        assert not (await call.read()).runs
        await master.submit(check_recipe(RECIPE))
        async with trainer_of(master):
            await master.commit(0)
            (assigned,) = (await call.read()).runs
            assert (assigned.run_id, assigned.weights_address) == ("run", "127.0.0.1:9")
            await master.fleet.ReportServing(m.ReportServingRequest(worker_id="w", run_id="run", policy=policy(0)))
            answer = await master.runs.WatchRun(m.WatchRunRequest(run_id="run"), timeout=60).read()
            assert {(w.id, w.kind, w.policy.number) for w in answer.fleet} == {("t", "trainer", 0), ("w", "rollout", 0)}


async def test_a_prompt_over_the_limit_of_the_bus_is_dead_and_the_run_goes_on(nats_url: str, tmp_path: Path) -> None:
    rows = [{"question": f"{i} " * (MAX_PAYLOAD_BYTES // 2 if i == 5 else 1), "answer": "1"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prompts = {"source": "jsonl", "path": str(tmp_path / "rows.jsonl"), "num_heldout": 1}
    rollout = {"prompts_per_iteration": 7, "group_size": 2}
    evaluation = {"num_problems": 1, "modes": ["greedy"]}
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE | {"prompts": prompts, "rollout": rollout, "evaluation": evaluation}))
        async with trainer_of(master), fleet(bus):
            await master.commit(0)
            assert len(await master.batch(0)) == 6
        ledger = (await master.run()).ledger
        assert (ledger.dispatched, ledger.dead, ledger.balanced) == (14, 2, True)
