"""Malformed messages on every subject, to real services: no service ends, each message is given up with a reason."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, GraderChoice, Score
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import (
    DTYPE_BFLOAT16,
    DTYPE_INT32,
    ENDING_BUDGET,
    ENDING_STOP,
    DeadLetter,
    Event,
    PackedArray,
    ScoredTrajectory,
    Segment,
    Trajectory,
)
from perilune.codec import pack
from perilune.recipe import check_recipe
from perilune.runtime import subjects
from perilune.runtime.bus import MAX_PAYLOAD_BYTES, Bus
from tests.integration.test_master import RECIPE, Master, answer_to, master_on, trainer_of

GROUP = "run.0.0"
TOKENS = pack(np.arange(3, dtype=np.int32))
LOGPROBS = pack(np.full(3, -1.0, np.float32))


def sample(**changes: object) -> Trajectory:
    """A sample of the first group as a worker would publish it, but for the changes."""
    whole = {
        "id": f"{GROUP}/0",
        "run_id": "run",
        "group_id": GROUP,
        "prompt_tokens": TOKENS,
        "segments": [Segment(tokens=TOKENS, logprobs=LOGPROBS, full_logprobs=LOGPROBS)],
        "ending": ENDING_BUDGET,
        "graders": [GraderChoice(name="exact")],
    }
    return Trajectory(**(whole | changes))  # type: ignore[arg-type]


def damaged() -> Iterator[Trajectory]:
    """Trajectories in which something is wrong that only who reads them closely finds."""
    seven = PackedArray(dtype=DTYPE_INT32, data=b"1234567")
    yield sample(segments=[Segment(tokens=seven)])
    yield sample(segments=[Segment(tokens=PackedArray(dtype=DTYPE_BFLOAT16, data=b"12"))])
    yield sample(segments=[Segment(tokens=PackedArray(dtype=99, data=b"1234"))])  # type: ignore[arg-type]
    yield sample(segments=[Segment()])
    yield sample(segments=[Segment(tokens=TOKENS, logprobs=pack(np.zeros(2, np.float32)))])
    yield sample(segments=[Segment(tokens=TOKENS, full_logprobs=pack(np.zeros(3, np.float64)))])
    yield sample(prompt_tokens=seven)
    yield sample(run_id="", group_id="")
    yield sample(run_id="another")
    yield sample(run_id="*", group_id="*.0.0")
    yield sample(run_id="a\r\nPUB perilune.dead 0\r\n\r\n")
    yield sample(group_id="another.0.0", id="another.0.0/0")
    yield sample(group_id="run.\0\r\n.*.>", id="run.\0\r\n.*.>/0")
    yield sample(group_id="run." + "x" * 100_000, id="x" * 100_000)
    yield sample(sample_index=2**32 - 1)
    yield sample(
        segments=[Segment(tokens=TOKENS)], graders=[GraderChoice(name="\0", options={"\r\n": "*"})], run_id="."
    )


def large_sample() -> bytes:
    """An honest one that is just within the limit: with its score it goes to the blob store."""
    text = MAX_PAYLOAD_BYTES - 100 - sample(sample_index=1, round=99).ByteSize() - 5
    return sample(sample_index=1, round=99, response="x" * text).SerializeToString()


def malformed(wrap: Callable[[Trajectory], bytes]) -> Iterator[bytes]:
    yield b"\xff\xfe no protobuf"
    yield os.urandom(1 << 10) + b"\xff"
    yield b"\xff" * (MAX_PAYLOAD_BYTES - (16 << 10))  # what is made of it has no room for it
    yield b""
    for number, each in enumerate(damaged()):
        each.round = number  # or those that reward makes something of would be one message
        yield wrap(each)


LETTERS = [
    DeadLetter(trajectory_ids=[f"{GROUP}/²", f"{GROUP}/{10**30}", f"{GROUP}/-1", "/", "", f"{GROUP}/0x1"]),
    DeadLetter(trajectory_ids=[f"{GROUP}/{2**32 - 1}"], reason="\0"),
    DeadLetter(message_id=f"{GROUP}/²", subject="perilune.run.prompt"),
    DeadLetter(message_id=f"{GROUP}/{10**30}/finished", subject="."),
    DeadLetter(message_id="\r\n\0/1/\r\n", subject="\r\n"),
    DeadLetter(),
    DeadLetter(trajectory_ids=[f"{GROUP}/0", f"{GROUP}/1"], reason="several samples at once"),
]
ADVISORIES = [
    b"no json",
    b"[]",
    b"{}",
    b'{"stream": {}, "stream_seq": 1}',
    b'{"stream": "PROMPTS", "stream_seq": -1, "deliveries": 5, "consumer": "x"}',
    b'{"stream": "PROMPTS > *", "stream_seq": 1, "deliveries": 5, "consumer": "x"}',
    b'{"stream": "PROMPTS", "stream_seq": 1e30, "deliveries": 5, "consumer": "x"}',
]


async def publish(bus: Bus, subject: str, payload: bytes, headers: bytes = b"") -> None:
    """As any client can, past what our own refuses."""
    head = b"NATS/1.0\r\n" + headers + b"\r\n"
    command = f"HPUB {subject} {len(head)} {len(head) + len(payload)}\r\n".encode("latin-1")
    await bus._client._send_command(command + head + payload + b"\r\n")
    await bus._client.flush()


@asynccontextmanager
async def reward_on(nats_url: str, home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    ready = home / "reward.json"
    environment = os.environ | {
        "PERILUNE_NATS_URL": nats_url,
        "PERILUNE_READY_FILE": str(ready),
        "PERILUNE_MASTER_ADDRESS": "127.0.0.1:9",
        "PERILUNE_GRADER_PROCESSES": "1",
        "PERILUNE_HOME": str(home),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.reward", env=environment)
    try:
        while not ready.exists():
            assert process.returncode is None, "the service ended before it was ready"
            await asyncio.sleep(0.02)
        yield process
    finally:
        process.kill()
        await process.wait()


async def until_empty(bus: Bus, *processes: asyncio.subprocess.Process) -> None:
    """Every queue is empty, and every service still lives."""
    consumers = (subjects.REWARD_CONSUMER, subjects.MASTER_CONSUMER, subjects.PARTIAL_CONSUMER)
    standing = (*consumers, subjects.DEAD_CONSUMER, subjects.EVENT_CONSUMER, subjects.ADVISORY_CONSUMER)
    async with asyncio.timeout(60):
        while left := sum([await bus.num_unfinished(consumer) for consumer in standing]):
            assert all(process.returncode is None for process in processes), f"a service ended; {left} messages left"
            await asyncio.sleep(0.1)


async def letters(bus: Bus) -> list[DeadLetter]:
    """Those that a service wrote."""
    last = (await bus._jetstream.stream_info(subjects.DEAD)).state.last_seq
    stored = [await bus._jetstream.get_msg(subjects.DEAD, number) for number in range(1, last + 1)]
    return [
        DeadLetter.FromString(each.data or b"") for each in stored if each.headers and "Nats-Msg-Id" in each.headers
    ]


async def test_no_message_ends_a_service(nats_url: str, tmp_path: Path) -> None:
    async with (
        master_on(nats_url, tmp_path) as master,
        reward_on(nats_url, tmp_path) as reward,
        Bus.connect(nats_url, "fleet") as bus,
    ):
        evaluation = {"num_problems": 1, "modes": ["greedy"]}
        await master.submit(check_recipe(RECIPE | {"evaluation": evaluation}))
        async with trainer_of(master):
            await master.commit(0)
            num_sent = await publish_everything(bus)
            await until_empty(bus, master.process, reward)
            found = await letters(bus)
            assert all(letter.reason for letter in found)
            assert len(found) == num_sent
            large = [letter for letter in found if len(letter.payload) > MAX_PAYLOAD_BYTES / 2]
            assert {letter.subject.rpartition(".")[2] for letter in large} >= {"finished", "partial", "scored", "event"}
            await the_run_goes_on(master, bus)


async def publish_everything(bus: Bus) -> int:
    """How many messages must end in the dead letters."""
    good = Score(status=SCORE_STATUS_OK, value=1)
    scores = [ScoredTrajectory(trajectory=sample(sample_index=1, ending=ENDING_STOP), score=good)]
    scores[0].score.value = float("nan")
    payloads = [
        *(("perilune.run.trajectory.finished", each) for each in malformed(Trajectory.SerializeToString)),
        *(("perilune.run.trajectory.partial", each) for each in malformed(Trajectory.SerializeToString)),
        *(
            ("perilune.run.trajectory.scored", each)
            for each in malformed(lambda s: ScoredTrajectory(trajectory=s, score=good).SerializeToString())
        ),
        ("perilune.run.trajectory.partial", sample(sample_index=7, ending=ENDING_STOP).SerializeToString()),
        ("perilune.run.event", b"\xff" * (MAX_PAYLOAD_BYTES - (16 << 10))),
        ("perilune.run.event", Event(run_id="another").SerializeToString()),
        ("perilune.\xff.event", b"\xff"),
        ("perilune.*.trajectory.scored", b"\xff"),
        *((f"{subjects.MAX_DELIVERIES_ADVISORY}.PROMPTS.x", each) for each in ADVISORIES),
    ]
    for number, (subject, payload) in enumerate(payloads):
        headers = [b"", b"Nats-Msg-Id: \xff\xfe %d\r\n" % number, b"Status: 404\r\n", b"a\tb\r\n: \r\n"][number % 4]
        await publish(bus, subject, payload, headers)
    for each in [*LETTERS, *scores]:
        subject = subjects.DEAD_SUBJECT if isinstance(each, DeadLetter) else subjects.scored_subject("run")
        await publish(bus, subject, each.SerializeToString())
    await publish(bus, subjects.DEAD_SUBJECT, b"\xff\xff")
    await publish(bus, "perilune.run.trajectory.finished", large_sample())
    return len(payloads) + len(scores) + 1


async def the_run_goes_on(master: Master, bus: Bus) -> None:
    """What was given up came of no task, and ended no sample: all groups are answered and trained on."""
    async for deliveries in bus.deliveries(subjects.rollout_consumer("run"), RolloutTask):
        for delivery in deliveries:
            for index in delivery.message.sample_indices:
                answer = answer_to(delivery.message, index)
                await bus.publish(subjects.scored_subject("run"), answer, f"{answer.trajectory.id}/scored")
            await delivery.ack()
        if deliveries:
            break
    batch = await master.batch(0)
    assert [group.group_id for group in batch] == ["run.0.0", "run.0.1", "run.0.2"]
    ledger = (await master.run()).ledger
    assert (ledger.dispatched, ledger.dead, ledger.balanced) == (6, 0, True)
