"""Partial trajectories and tools through the rollout service as it runs: real bus, weight stream and tiny model."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion, Trajectory
from perilune.codec import num_response_tokens, unpack
from perilune.recipe import VllmEngineTable
from perilune.runtime import subjects
from services.rollout.engines import ENGINES, EngineRow
from tests.integration.test_rollout_service import RUN, World, received, send, task, trajectories, world

__all__ = ["world"]  # a fixture


def tokens_of(sample: Trajectory) -> list[int]:
    return [token for segment in sample.segments for token in unpack(segment.tokens).tolist()]


def rest_of(saved: Trajectory, original: RolloutTask, version: int, budget: int = 0) -> RolloutTask:
    """What the master sends to have a saved sample continued."""
    again = RolloutTask()
    again.CopyFrom(original)
    again.sample_indices[:] = [saved.sample_index]
    again.policy.CopyFrom(PolicyVersion(number=version))
    again.budget_tokens = budget
    again.unfinished.CopyFrom(saved)
    again.unfinished.round += 1
    return again


async def saved(world: World, count: int) -> dict[str, Trajectory]:
    return {each.id: each for each in await received(world.bus, subjects.PARTIAL_CONSUMER, Trajectory, count)}


async def test_a_budget_cuts_a_response_and_the_rest_is_what_it_would_have_been(world: World) -> None:
    """Under one version, in three pieces: the very tokens of an uninterrupted sample."""
    await world.trainer.publish(0)
    await world.assign()
    whole = task("g")
    await send(world.bus, whole)
    expected = {key: tokens_of(sample) for key, sample in (await trajectories(world.bus, 4)).items()}
    pieces = task("h")  # another name, the same seed
    pieces.budget_tokens = 4
    await send(world.bus, pieces)
    expected = {key.replace("g", "h"): tokens for key, tokens in expected.items()}
    long = [key for key, tokens in expected.items() if len(tokens) > 4]
    assert long  # else it says nothing
    unfinished = await saved(world, len(long))
    assert unfinished.keys() == set(long)
    for sample in unfinished.values():
        assert sample.ending == trajectory.ENDING_BUDGET
        assert tokens_of(sample) == expected[sample.id][:4]
        await world.bus.publish(subjects.prompt_subject(RUN), rest_of(sample, pieces, 0), f"{sample.id}/round-1")
    short = len(expected) - len(long)
    found = await trajectories(world.bus, short + len(long))
    assert {key: tokens_of(sample) for key, sample in found.items()} == expected
    assert {found[key].round for key in long} == {1}


async def test_a_continued_sample_gets_segments_of_newer_versions(world: World) -> None:
    await world.trainer.publish(0)
    await world.assign()
    first = task("g")
    first.budget_tokens = 4
    await send(world.bus, first)
    await asyncio.sleep(0)
    unfinished = (await saved(world, 1)).values()
    await world.trainer.publish(1)
    for sample in unfinished:
        await world.bus.publish(subjects.prompt_subject(RUN), rest_of(sample, first, 1), f"{sample.id}/round-1")
    ids = {sample.id for sample in unfinished}
    ended = {key: sample for key, sample in (await trajectories(world.bus, 4)).items() if key in ids}
    for sample in ended.values():
        assert [segment.policy.number for segment in sample.segments] == [0, 1]
        assert len(unpack(sample.segments[0].tokens)) == len(unpack(sample.segments[0].logprobs)) == 4
        assert num_response_tokens(sample) <= 30


@pytest.mark.parametrize("num_samples", [4, 12])
async def test_a_worker_that_stops_gives_back_what_it_wrote(world: World, num_samples: int) -> None:
    """Every sample is finished or saved, none lost; the message is acknowledged."""
    await world.trainer.publish(0)
    await world.assign()
    await world.master.until_served(0)
    long = task("g", num_samples=num_samples)
    long.sampling.max_tokens = 100
    long.sampling.temperature = 2.0  # seldom the end of sequence
    await send(world.bus, long)
    await until_generating(world)
    await world.stop()
    count = await world.bus.num_unfinished(subjects.PARTIAL_CONSUMER)
    ended = await world.bus.num_unfinished(subjects.REWARD_CONSUMER)
    waiting = await world.bus.num_unfinished(subjects.rollout_consumer(RUN))
    assert count + ended == num_samples
    assert waiting == 0
    for sample in (await saved(world, count)).values() if count else ():
        assert sample.ending == trajectory.ENDING_ABORTED
        assert len(tokens_of(sample)) < 100
    await world.start()


async def test_an_engine_that_is_killed_in_the_middle_of_saved_samples_costs_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine with a process of its own; another one goes on from the very token."""
    plain = EngineRow("tests.conformance.plain_driver:PlainDriver", is_driver=True)
    monkeypatch.setitem(ENGINES, "vllm", plain)
    await world.trainer.publish(0)
    await world.assign(engine=VllmEngineTable())
    whole, pieces = task("g", num_samples=8), task("h", num_samples=8)  # another name, the same seed
    for each in (whole, pieces):
        each.sampling.max_tokens = 100
        each.sampling.temperature = 2.0  # seldom the end of sequence
    await send(world.bus, whole)
    expected = {key.replace("g", "h"): sample for key, sample in (await trajectories(world.bus, 8)).items()}
    pieces.budget_tokens = 8
    await send(world.bus, pieces)
    unfinished = await saved(world, sum(num_response_tokens(sample) > 8 for sample in expected.values()))
    assert sum(num_response_tokens(expected[key]) for key in unfinished) > 150  # else it is over before the kill
    for sample in unfinished.values():
        await world.bus.publish(subjects.prompt_subject(RUN), rest_of(sample, pieces, 0), f"{sample.id}/round-1")
    await until_generating(world)
    (engine,) = [
        child for child in psutil.Process().children() if "services.rollout.engines.process.child" in child.cmdline()
    ]
    engine.kill()
    assert await world.bus.num_unfinished(subjects.REWARD_CONSUMER) == 8 - len(unfinished)
    found = await trajectories(world.bus, 8)
    assert {key: tokens_of(sample) for key, sample in found.items()} == {
        key: tokens_of(sample) for key, sample in expected.items()
    }
    assert all(len(unpack(found[key].segments[0].tokens)) == 8 for key in unfinished)


async def until_generating(world: World) -> None:
    assert world.service is not None
    for _ in range(2000):
        info = await world.bus._jetstream.consumer_info(subjects.PROMPTS, f"rollout-{RUN}")
        if info.num_ack_pending:
            await asyncio.sleep(0.05)
            return
        await asyncio.sleep(0.005)
    raise AssertionError("no worker took the group")
