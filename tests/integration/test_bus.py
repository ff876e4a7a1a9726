"""The bus on a real NATS server: what is delivered, kept, given to another, and given up."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.msg import Msg

import perilune.runtime.bus
from perilune.api.trajectory.v1.trajectory_pb2 import DeadLetter, Event, Trajectory
from perilune.errors import InvalidInputError, UnavailableError
from perilune.runtime.bus import Bus, Delivery
from perilune.runtime.subjects import DEAD_CONSUMER, REWARD_CONSUMER, finished_subject

SUBJECT = finished_subject("run")


async def publish(bus: Bus, *ids: str) -> None:
    for id_ in ids:
        await bus.publish(SUBJECT, Trajectory(id=id_), id_)


async def take(bus: Bus, count: int, max_batch: int = 64) -> list[Delivery[Trajectory]]:
    taken: list[Delivery[Trajectory]] = []
    async with asyncio.timeout(20):
        async for deliveries in bus.deliveries(REWARD_CONSUMER, Trajectory, max_batch):
            taken += deliveries
            if len(taken) >= count:
                break
    return taken


async def test_the_same_id_is_stored_once(bus: Bus) -> None:
    await publish(bus, "a", "b", "a")
    assert [d.message.id for d in await take(bus, 2)] == ["a", "b"]
    assert await bus.num_unfinished(REWARD_CONSUMER) == 2


async def test_a_batch_does_not_wait_to_be_full(bus: Bus) -> None:
    await publish(bus, *map(str, range(5)))
    started = time.monotonic()
    assert len(await take(bus, 5, max_batch=64)) == 5
    assert time.monotonic() - started < 0.5


async def test_a_worker_takes_no_more_than_it_asked_for(bus: Bus, nats_url: str) -> None:
    await publish(bus, *map(str, range(6)))
    assert len(await take(bus, 1, max_batch=2)) == 2
    async with Bus.connect(nats_url, "another") as other:
        assert len(await take(other, 4)) == 4


async def test_ack_forgets_and_retry_delivers_again(bus: Bus) -> None:
    await publish(bus, "a", "b")
    first, second = await take(bus, 2)
    await first.ack()
    await second.retry(delay_s=0.01)
    (again,) = await take(bus, 1)
    assert again.message.id == "b"
    await again.ack()
    await asyncio.sleep(0.1)
    assert await bus.num_unfinished(REWARD_CONSUMER) == 0


async def test_what_is_in_hand_is_kept_and_what_a_dead_worker_held_goes_to_another(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perilune.runtime.bus, "ACK_WAIT_S", 0.6)
    async with Bus.connect(nats_url, "master") as master:
        await master.declare()
        async with Bus.connect(nats_url, "first") as first:
            await publish(master, "a")
            (held,) = await take(first, 1)
            await asyncio.sleep(1.5)  # more than twice the wait: only the heartbeat keeps it
            assert held.raw.metadata.num_delivered == 1
            assert await taken_within(master, 0.3) == []
        (again,) = await take(master, 1)  # the first worker is gone
        assert again.raw.metadata.num_delivered == 2


async def taken_within(bus: Bus, seconds: float) -> list[str]:
    try:
        async with asyncio.timeout(seconds):
            return [d.message.id for d in await take(bus, 1)]
    except TimeoutError:
        return []


async def test_a_cancellation_that_comes_with_an_answer_is_heeded(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.wait_for`, in which the client waits, swallows it before Python 3.12."""
    taking = asyncio.create_task(take(bus, 1))
    await asyncio.sleep(0.2)  # by now it waits for an answer
    put = asyncio.Queue.put_nowait

    def put_and_cancel(queue: asyncio.Queue[object], item: object) -> None:
        put(queue, item)
        if isinstance(item, Msg) and not taking.cancelling():
            taking.cancel()

    monkeypatch.setattr(asyncio.Queue, "put_nowait", put_and_cancel)
    done, _ = await asyncio.wait([taking], timeout=10)
    assert done
    assert taking.cancelled()


async def test_what_cannot_be_read_is_buried_with_its_bytes(bus: Bus) -> None:
    await bus._client.jetstream().publish(SUBJECT, b"\xff\xfe", headers={"Nats-Msg-Id": "broken"})
    await publish(bus, "good")
    assert [d.message.id for d in await take(bus, 1)] == ["good"]
    async for letters in bus.deliveries(DEAD_CONSUMER, DeadLetter):
        (letter,) = letters
        break
    assert (letter.message.payload, letter.message.message_id) == (b"\xff\xfe", "broken")
    assert letter.message.subject == SUBJECT
    assert "Trajectory" in letter.message.reason


async def test_no_server_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UnavailableError, match="perilune serve nats"):
        async with Bus.connect("nats://127.0.0.1:1", "test"):
            pass


async def test_a_message_over_the_limit_is_refused_before_it_is_sent(bus: Bus) -> None:
    with pytest.raises(ValueError, match="the bus takes"):
        await bus.publish(SUBJECT, Event(text="x" * (perilune.runtime.bus.MAX_PAYLOAD_BYTES + 1)), "large")


@pytest.mark.parametrize("run_id", ["", "*", "a b", "a\r\nPUB x 0\r\n", "\0", "x" * 600, "a..b", ">"])
async def test_an_id_that_is_no_part_of_a_subject_is_refused_before_it_is_sent(bus: Bus, run_id: str) -> None:
    with pytest.raises(InvalidInputError, match="no subject"):
        await bus.publish(finished_subject(run_id), Event(), "id")


async def test_any_message_id_is_an_id(bus: Bus) -> None:
    ids = ["a\r\nb", "a\0b", "ä", "x" * 5000, "x" * 5001]
    await publish(bus, *ids, *ids)
    assert len(await take(bus, len(ids))) == len(ids)


async def test_the_largest_message_fits_with_its_headers(bus: Bus) -> None:
    room = perilune.runtime.bus.MAX_PAYLOAD_BYTES - 500
    await bus.publish(SUBJECT, Event(text="x" * room), "large")
    with pytest.raises(InvalidInputError, match="the bus takes"):
        await bus.publish(SUBJECT, Event(text="x" * (perilune.runtime.bus.MAX_PAYLOAD_BYTES - 8)), "larger")


async def test_consumers_of_an_older_version_are_brought_up_to_date(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Bus.connect(nats_url, "master") as bus:
        monkeypatch.setattr(perilune.runtime.bus, "MAX_DELIVERIES", 5)
        await bus.declare()
        monkeypatch.undo()
        await bus.declare()
        info = await bus._jetstream.consumer_info(REWARD_CONSUMER.stream, REWARD_CONSUMER.durable)
        assert info.config.max_deliver == perilune.runtime.bus.MAX_DELIVERIES
