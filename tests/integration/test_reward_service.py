"""The reward service as it runs: its own process, a real NATS server, real gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_GRADER_ERROR,
    SCORE_STATUS_OK,
    SCORE_STATUS_TIMEOUT,
    SCORE_STATUS_UNDECIDED,
    GraderChoice,
)
from perilune.api.trajectory.v1.trajectory_pb2 import Prompt, ScoredTrajectory, Trajectory
from perilune.client import AsyncRewardClient, RewardClient, grader
from perilune.errors import InvalidInputError
from perilune.runtime import subjects
from perilune.runtime.bus import Bus, Delivery

PAIR = GraderChoice(name="exact", options={"marker": "answer:", "unordered": "true"})
HANGS = r"\sum_{n=1}^{10^{9}} \sin(n!)"

Start = Callable[[], tuple["subprocess.Popen[bytes]", str]]


@pytest.fixture
def start_service(nats_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts reward services; each call gives the process and its address."""
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> tuple[subprocess.Popen[bytes], str]:
        ready = tmp_path / f"ready{len(processes)}.json"
        settings = {
            "PERILUNE_NATS_URL": nats_url,
            "PERILUNE_READY_FILE": str(ready),
            "PERILUNE_MASTER_ADDRESS": "127.0.0.1:9",
            "PERILUNE_GRADER_TIMEOUT_S": "1",
            "PERILUNE_GRADER_PROCESSES": "1",
        }
        process = subprocess.Popen([sys.executable, "-m", "services.reward"], env=os.environ | settings)
        processes.append(process)
        while not ready.exists():
            assert process.poll() is None, "the service ended before it was ready"
            wait_a_little(process)
        return process, json.loads(ready.read_text())["address"]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_a_little(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(0.02)
    except subprocess.TimeoutExpired:
        return


@pytest.fixture
async def scored(bus: Bus) -> AsyncIterator[asyncio.Queue[Delivery[ScoredTrajectory]]]:
    """What arrives at the master's end, unacknowledged."""
    queue: asyncio.Queue[Delivery[ScoredTrajectory]] = asyncio.Queue()

    async def collect() -> None:
        async for batch in bus.deliveries(subjects.MASTER_CONSUMER, ScoredTrajectory):
            for delivery in batch:
                queue.put_nowait(delivery)

    task = asyncio.create_task(collect())
    yield queue
    task.cancel()


async def publish(bus: Bus, index: int, response: str, reference: str, *graders: GraderChoice) -> None:
    trajectory = Trajectory(
        id=f"g/{index}",
        run_id="run",
        group_id="g",
        sample_index=index,
        prompt=Prompt(reference=reference),
        response=response,
        graders=graders,
    )
    await bus.publish(subjects.finished_subject("run"), trajectory, trajectory.id)


async def take(queue: asyncio.Queue[Delivery[ScoredTrajectory]], count: int) -> dict[str, ScoredTrajectory]:
    """The next so many, by trajectory id, acknowledged."""
    found = {}
    for _ in range(count):
        delivery = await asyncio.wait_for(queue.get(), 30)
        await delivery.ack()
        found[delivery.message.trajectory.id] = delivery.message
    return found


async def test_trajectories_come_back_scored(
    bus: Bus, start_service: Start, scored: asyncio.Queue[Delivery[ScoredTrajectory]]
) -> None:
    await asyncio.to_thread(start_service)
    await publish(bus, 0, "9 + 25 = 34 no 9 + 12 = 21 yes answer: 12 9", "9 12", PAIR)
    await publish(bus, 1, "9 + 25 = 34 no answer: none", "9 12", PAIR)
    await publish(bus, 2, "answer: 9 12", "9 12", GraderChoice(name="exactt"))
    await publish(bus, 3, "answer: 9 12", "9 12", PAIR, GraderChoice(name="numeric", weight=0.5))

    found = await take(scored, 4)

    assert [found[f"g/{i}"].score.value for i in (0, 1)] == [1.0, 0.0]
    assert all(found[f"g/{i}"].score.status == SCORE_STATUS_OK for i in (0, 1))
    misspelt = found["g/2"].score
    assert (misspelt.status, misspelt.HasField("value")) == (SCORE_STATUS_GRADER_ERROR, False)
    assert "did you mean 'exact'?" in misspelt.components[0].evidence["error"]
    mixed = found["g/3"].score  # `9 12` is no number: numeric cannot grade against it
    assert (mixed.status, mixed.HasField("value")) == (SCORE_STATUS_GRADER_ERROR, False)
    assert mixed.components[0].value == 1.0
    assert found["g/0"].trajectory.response.endswith("answer: 12 9")


async def test_a_redelivered_trajectory_is_scored_once(
    bus: Bus, start_service: Start, scored: asyncio.Queue[Delivery[ScoredTrajectory]]
) -> None:
    await publish(bus, 0, "answer: 9 12", "9 12", PAIR)
    async for batch in bus.deliveries(subjects.REWARD_CONSUMER, Trajectory):  # a worker takes it, scores, and dies
        for delivery in batch:
            message = ScoredTrajectory(trajectory=delivery.message)
            await bus.publish(subjects.scored_subject("run"), message, "g/0/scored-0")
            await delivery.retry(delay_s=0.1)
        if batch:
            break
    await asyncio.to_thread(start_service)
    await publish(bus, 1, "answer: 9 12", "9 12", PAIR)

    assert set(await take(scored, 2)) == {"g/0", "g/1"}
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(scored.get(), 1.5)


async def test_a_killed_worker_loses_nothing(
    bus: Bus, start_service: Start, scored: asyncio.Queue[Delivery[ScoredTrajectory]], monkeypatch: pytest.MonkeyPatch
) -> None:
    math = GraderChoice(name="math")
    first, _ = await asyncio.to_thread(start_service)
    for index in range(40):
        await publish(bus, index, rf"\boxed{{{index}x + x}}", f"{index + 1}x", math)
    await take(scored, 1)
    first.send_signal(signal.SIGKILL)
    await asyncio.to_thread(start_service)

    # What the dead worker had in hand comes back after the bus's ack wait.
    found = await take(scored, 39)
    assert all(message.score.value == 1.0 for message in found.values())


async def test_a_hanging_grader_is_killed_and_the_next_request_works(start_service: Start, bus: Bus) -> None:
    _, address = await asyncio.to_thread(start_service)
    async with AsyncRewardClient(address) as rewards:
        stuck = await rewards.score(rf"\boxed{{{HANGS}}}", "x+1", ["math"])
        assert stuck.status in (SCORE_STATUS_TIMEOUT, SCORE_STATUS_UNDECIDED)
        assert not stuck.HasField("value")
        right = await rewards.score(r"\boxed{2x+2}", "2(x+1)", ["math"])
        assert (right.status, right.value) == (SCORE_STATUS_OK, 1.0)


async def test_rpc_scores_and_explains_mistakes(start_service: Start, bus: Bus) -> None:
    _, address = await asyncio.to_thread(start_service)

    def call() -> None:
        with RewardClient(address) as rewards:
            assert {info.name for info in rewards.graders()} >= {"exact", "numeric", "math", "format"}
            mix = [grader("numeric", weight=2), grader("format", weight=0.5, options={"marker": "answer:"})]
            assert rewards.score("six times seven: answer: 42", "42", mix).value == 2.5
            with pytest.raises(InvalidInputError, match="did you mean 'marker'"):
                rewards.score("4", "4", [grader("exact", options={"maker": "answer:"})])
            with pytest.raises(InvalidInputError, match="did you mean 'numeric'"):
                rewards.score("4", "4", ["numerics"])
            with pytest.raises(InvalidInputError, match="no grader"):
                rewards.score("4", "4", [])

    await asyncio.to_thread(call)


async def test_it_stops_cleanly(start_service: Start, bus: Bus) -> None:
    process, address = await asyncio.to_thread(start_service)
    async with AsyncRewardClient(address) as rewards:
        await rewards.score(r"\boxed{2x+2}", "2(x+1)", ["math"])
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 10) == 0
