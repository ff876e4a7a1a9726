"""Blobs in a folder, and messages over the bus's limit that lie there."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import perilune.runtime.bus
from perilune.api.trajectory.v1.trajectory_pb2 import DeadLetter, Segment, Trajectory
from perilune.codec import pack
from perilune.errors import InvalidInputError, NotFoundError, SettingsError, TooLargeError, UnavailableError
from perilune.runtime.blobs import Blobs, content_name, message_name
from perilune.runtime.bus import MAX_PAYLOAD_BYTES, Bus, Delivery
from perilune.runtime.subjects import DEAD_CONSUMER, REWARD_CONSUMER, finished_subject
from perilune.runtime.wholes import text_of

LARGE = Trajectory(id="g/0", run_id="run", group_id="g", response="x" * (MAX_PAYLOAD_BYTES + 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
async def large_bus(nats_url: str, folder: Path) -> AsyncIterator[Bus]:
    """A bus with a blob store behind it."""
    async with Bus.connect(nats_url, "test", Blobs(str(folder))) as bus:
        await bus.declare()
        yield bus


async def send(bus: Bus, message: Trajectory = LARGE, message_id: str = "run.0.0/3/finished-0") -> None:
    await bus.publish(finished_subject("run"), message, message_id)


async def take(bus: Bus) -> Delivery[Trajectory]:
    async with asyncio.timeout(20):
        async for deliveries in bus.deliveries(REWARD_CONSUMER, Trajectory, max_batch=1):
            if deliveries:
                return deliveries[0]
    raise AssertionError


async def letter(bus: Bus) -> DeadLetter:
    """The next dead letter, while the queue is read."""
    reading = asyncio.create_task(take(bus))
    try:
        async with asyncio.timeout(20):
            async for deliveries in bus.deliveries(DEAD_CONSUMER, DeadLetter):
                if deliveries:
                    return deliveries[0].message
    finally:
        reading.cancel()
    raise AssertionError


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_content_comes_back_by_its_digest(folder: Path) -> None:
    blobs = Blobs(folder.as_uri())
    digest = await blobs.put(b"an image")
    assert digest == hashlib.sha256(b"an image").hexdigest()
    assert await blobs.put(b"an image") == digest
    assert await blobs.get(digest) == b"an image"
    assert len(files(folder)) == 1
    (folder / content_name(digest)).write_bytes(b"another image")
    with pytest.raises(InvalidInputError, match="damaged"):
        await blobs.get(digest)
    await blobs.delete(content_name(digest))
    await blobs.delete(content_name(digest))
    with pytest.raises(NotFoundError, match="PERILUNE_BLOBS"):
        await blobs.get(digest)


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "messages/../x", "content/" + "0" * 63, "/etc/passwd"])
async def test_a_name_leads_nowhere_else(folder: Path, name: str) -> None:
    for use in (Blobs(str(folder)).read, Blobs(str(folder)).delete):
        with pytest.raises(InvalidInputError, match="no blob's name"):
            await use(name)


def test_a_store_that_no_library_reads_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match="PERILUNE_BLOBS 'nosuch://x'"):
        Blobs("nosuch://x")


async def test_only_old_messages_are_swept(folder: Path) -> None:
    blobs = Blobs(str(folder))
    assert await blobs.delete_old_messages() == 0
    old, new = (message_name(name, hashlib.sha256(b"").hexdigest()) for name in ("old", "new"))
    await blobs.write(old, b"")
    await blobs.write(new, b"")
    content = content_name(await blobs.put(b"an image"))
    for name in (old, content):
        os.utime(folder / name, (0, 0))
    assert await blobs.delete_old_messages() == 1
    assert set(files(folder)) == {folder / new, folder / content}


async def test_a_message_over_the_limit_arrives_and_leaves_nothing_behind(large_bus: Bus, folder: Path) -> None:
    await send(large_bus)
    assert len(files(folder)) == 1
    delivery = await take(large_bus)
    assert delivery.message == LARGE
    await delivery.ack()
    assert files(folder) == []


async def test_the_same_bytes_under_another_id_are_another_blob(large_bus: Bus, folder: Path) -> None:
    await send(large_bus, message_id="g/1")
    await send(large_bus, message_id="g/2")
    await (await take(large_bus)).ack()
    assert (await take(large_bus)).message == LARGE


async def test_a_message_that_is_delivered_again_is_still_there(large_bus: Bus) -> None:
    await send(large_bus)
    await (await take(large_bus)).retry(0.01)
    assert (await take(large_bus)).message == LARGE


async def test_a_message_that_is_gone_is_rejected_in_words_with_its_sample(large_bus: Bus, folder: Path) -> None:
    await send(large_bus)
    shutil.rmtree(folder)
    found = await letter(large_bus)
    assert "PERILUNE_BLOBS does not name one store" in found.reason
    assert found.message_id == "run.0.0/3/finished-0"  # which says whose end it is


async def test_a_message_that_is_damaged_is_rejected_in_words(large_bus: Bus, folder: Path) -> None:
    await send(large_bus)
    files(folder)[0].write_bytes(b"other bytes")
    assert "damaged" in (await letter(large_bus)).reason


async def test_a_reader_without_a_store_rejects_it_in_words(large_bus: Bus, bus: Bus) -> None:
    await send(large_bus)
    assert "this service has none" in (await letter(bus)).reason


async def test_a_store_that_is_away_is_waited_for(
    large_bus: Bus, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perilune.runtime.bus, "BLOB_RETRY_S", 0.1)
    folder.write_text("a file in the folder's place")
    sending = asyncio.create_task(send(large_bus))
    await asyncio.sleep(1.0)
    assert not sending.done()
    folder.unlink()
    await sending
    (blob,) = files(folder)
    blob.rename(folder / "elsewhere")
    blob.mkdir()  # reading fails, and the blob is not gone
    taking = asyncio.create_task(take(large_bus))
    await asyncio.sleep(0.5)
    assert not taking.done()
    blob.rmdir()
    (folder / "elsewhere").rename(blob)
    assert (await taking).message == LARGE


async def test_what_no_batch_could_hold_is_refused_before_it_is_written(
    large_bus: Bus, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perilune.runtime.bus, "MAX_LARGE_BYTES", MAX_PAYLOAD_BYTES + 100)
    with pytest.raises(TooLargeError, match="the bus takes"):
        await send(large_bus, Trajectory(response="x" * (MAX_PAYLOAD_BYTES + 100)))
    assert files(folder) == []


async def test_a_trajectory_over_the_limit_is_kept_whole_and_forgotten(large_bus: Bus, folder: Path) -> None:
    tokens = pack(np.arange(MAX_PAYLOAD_BYTES // 4 + 10, dtype=np.int32))
    sample = Trajectory(id="g/0", run_id="run", group_id="g", segments=[Segment(tokens=tokens)])
    whole = await large_bus.keep_whole(sample)
    assert await large_bus.whole_of(text_of(sample, whole)) == sample
    await large_bus.forget_whole(sample, whole)
    assert files(folder) == []
    assert await large_bus.whole_of(text_of(sample, whole)) is None


async def test_an_outage_is_no_damage(folder: Path) -> None:
    (folder / "content").mkdir(parents=True)
    (folder / content_name("0" * 64)).mkdir()
    with pytest.raises(UnavailableError, match="the blob store"):
        await Blobs(str(folder)).get("0" * 64)
