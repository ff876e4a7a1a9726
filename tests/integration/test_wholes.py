"""A finished trajectory in two messages: whole on the bus, text to the graders. The master joins the score to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Component, GraderChoice, Score
from perilune.api.trajectory.v1.trajectory_pb2 import (
    ENDING_STOP,
    PURPOSE_TRAIN,
    DeadLetter,
    Prompt,
    ScoredTrajectory,
    Segment,
    StoredMessage,
    Trajectory,
)
from perilune.codec import pack
from perilune.runtime.bus import Bus
from perilune.runtime.subjects import (
    DEAD_CONSUMER,
    MASTER_CONSUMER,
    REWARD_CONSUMER,
    SAMPLES,
    finished_subject,
    scored_subject,
)
from perilune.runtime.wholes import text_of, with_score
from services.master.intake import parts_by_size, take_scores
from services.master.records import Group
from services.master.seals import seal_of
from services.master.store import Store
from services.reward.processes import Processes
from services.reward.worker import work

SECRET = b"of the run"
GROUP = Group("run.0.0", "run", 0, PURPOSE_TRAIN, "", 0, 0, num_samples=2)
RIGHT = Score(
    status=SCORE_STATUS_OK,
    value=1.0,
    components=[Component(grader="exact", status=SCORE_STATUS_OK, value=1.0, weight=1.0)],
)


def sample(index: int = 0, num_tokens: int = 5, round: int = 0) -> Trajectory:
    """As a worker that was given its group sends it."""
    tokens = np.arange(num_tokens, dtype=np.int32)
    logprobs = pack(np.zeros(num_tokens, np.float32))
    made = Trajectory(
        id=f"run.0.0/{index}",
        run_id="run",
        group_id="run.0.0",
        sample_index=index,
        prompt=Prompt(reference="answer: 4"),
        prompt_tokens=pack(tokens),
        segments=[Segment(tokens=pack(tokens), logprobs=logprobs, full_logprobs=logprobs)],
        ending=ENDING_STOP,
        response="answer: 4",
        graders=[GraderChoice(name="exact")],
        round=round,
    )
    made.prompt.seal = seal_of(SECRET, made)
    return made


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/test.db") as store:
        await store.add_run("run", "{}")
        store._secrets["run"] = SECRET
        await store.add_groups([GROUP])
        yield store


@contextlib.asynccontextmanager
async def running(*works: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(work) for work in works]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def taken(bus: Bus, store: Store) -> None:
    """Lets the master take what lies on its queue."""
    async with running(take_scores(bus, store, lambda run_id: None)), asyncio.timeout(20):
        while await bus.num_unfinished(MASTER_CONSUMER):
            await asyncio.sleep(0.02)


async def stored(store: Store) -> list[ScoredTrajectory]:
    payloads, _ = await store.samples("run", 0, PURPOSE_TRAIN, "", 10)
    return [ScoredTrajectory.FromString(payload) for payload in payloads]


async def num_wholes(bus: Bus) -> int:
    return (await bus._jetstream.stream_info(SAMPLES)).state.messages


async def letters(bus: Bus) -> list[DeadLetter]:
    async for found in bus.deliveries(DEAD_CONSUMER, DeadLetter):
        return [delivery.message for delivery in found]
    raise AssertionError


async def score_of(bus: Bus, message: ScoredTrajectory, message_id: str) -> None:
    await bus.publish(scored_subject("run"), message, message_id)


async def test_the_tokens_reach_the_master_and_no_grader(bus: Bus, store: Store) -> None:
    original = sample()
    text = text_of(original, await bus.keep_whole(original))
    assert not text.segments
    assert not text.prompt_tokens.data
    await bus.publish(finished_subject("run"), text, "text")
    with Processes(1, 5.0, 1 << 30) as processes:
        async with running(work(bus, processes, 4, 5.0)), asyncio.timeout(20):
            while await bus.num_unfinished(REWARD_CONSUMER) or not await bus.num_unfinished(MASTER_CONSUMER):
                await asyncio.sleep(0.02)
    await taken(bus, store)
    (found,) = await stored(store)
    assert found.trajectory == original
    assert found.score.value == 1.0
    assert await num_wholes(bus) == 0


NEWER = b"\xc2\x3e\x05newer"  # field 1000, which no version has


def of_newer_version(message: Message) -> Any:
    """The message with a field, and an ending, that this version does not know."""
    if isinstance(message, Trajectory):
        message.ending = 99  # type: ignore[assignment]
    return type(message).FromString(message.SerializeToString() + NEWER)


async def test_what_a_newer_version_adds_ends_no_worker_and_reaches_the_end(bus: Bus, store: Store) -> None:
    original = sample()
    original = of_newer_version(original)
    text = of_newer_version(text_of(original, of_newer_version(await bus.keep_whole(original))))
    await bus.publish(finished_subject("run"), text, "text")
    with Processes(1, 5.0, 1 << 30) as processes:
        async with running(work(bus, processes, 4, 5.0)), asyncio.timeout(20):
            while await bus.num_unfinished(REWARD_CONSUMER) or not await bus.num_unfinished(MASTER_CONSUMER):
                await asyncio.sleep(0.02)
    await taken(bus, store)
    (found,) = await stored(store)
    assert (found.trajectory, found.score.value) == (original, 1.0)
    assert NEWER in found.trajectory.SerializeToString()


async def test_a_score_that_comes_twice_counts_once(bus: Bus, store: Store) -> None:
    original = sample()
    message = with_score(text_of(original, await bus.keep_whole(original)), RIGHT)
    await score_of(bus, message, "first")
    await taken(bus, store)
    message.score.value = 0.5
    await score_of(bus, message, "once more, much later")
    await taken(bus, store)
    (found,) = await stored(store)
    assert (found.trajectory, found.score) == (original, RIGHT)
    assert (await store.progress("run", 0, 0)).num_running == 1


async def test_a_group_that_is_sampled_twice_keeps_each_score_with_its_own_tokens(bus: Bus, store: Store) -> None:
    """The worker that stored the first whole died before it sent its text; another drew other tokens."""
    await bus.keep_whole(sample(num_tokens=3))
    second = sample(num_tokens=7)
    await score_of(bus, with_score(text_of(second, await bus.keep_whole(second)), RIGHT), "score")
    await taken(bus, store)
    (found,) = await stored(store)
    assert found.trajectory == second
    assert await num_wholes(bus) == 1  # until it is a week old


async def test_a_worker_of_a_version_before_sends_all_in_one(bus: Bus, store: Store) -> None:
    original = sample()
    await score_of(bus, with_score(original, RIGHT), "score")
    await taken(bus, store)
    (found,) = await stored(store)
    assert (found.trajectory, found.score) == (original, RIGHT)


async def test_a_score_whose_tokens_are_gone_leaves_its_sample_awaited(bus: Bus, store: Store) -> None:
    """The controller asks again for what is awaited and on no queue."""
    original = sample()
    whole = await bus.keep_whole(original)
    await bus.forget_whole(original, whole)
    await score_of(bus, with_score(text_of(original, whole), RIGHT), "score")
    await score_of(bus, with_score(text_of(original, StoredMessage(digest="none")), RIGHT), "nowhere")
    await taken(bus, store)
    assert await stored(store) == []
    assert (await store.progress("run", 0, 0)).num_running == 2


async def test_a_score_of_another_sample_is_rejected_in_words_and_no_other_is_lost(bus: Bus, store: Store) -> None:
    first, second = sample(0), sample(1)
    whole = await bus.keep_whole(first)
    await score_of(bus, with_score(text_of(second, whole), RIGHT), "another sample")
    await score_of(bus, with_score(text_of(first, whole), RIGHT), "right")
    await taken(bus, store)
    (found,) = await stored(store)
    assert found.trajectory == first
    (letter,) = await letters(bus)
    assert (letter.trajectory_ids[0], "refers to the trajectory 'run.0.0/0'" in letter.reason) == ("run.0.0/1", True)


async def test_a_score_of_other_tokens_leaves_its_sample_awaited(bus: Bus, store: Store) -> None:
    """Where a bus has lost its store, numbers begin again: another whole may lie where a score says its own does."""
    first = sample(0)
    whole = await bus.keep_whole(first)
    of_before = StoredMessage(sequence=whole.sequence, digest="0" * 64, num_bytes=1)
    await score_of(bus, with_score(text_of(first, of_before), RIGHT), "another digest")
    await taken(bus, store)
    assert await stored(store) == []
    assert (await store.progress("run", 0, 0)).num_running == 2
    assert await letters(bus) == []


def test_many_tokens_are_fetched_a_part_at_a_time() -> None:
    assert parts_by_size([1, 2, 3, 9, 1], lambda size: size, 5) == [[1, 2], [3], [9], [1]]
    assert parts_by_size([0, 0], lambda size: size, 5) == [[0, 0]]
    assert parts_by_size([], lambda size: size, 5) == []
