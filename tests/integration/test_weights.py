"""The weight stream over real sockets: whole, deltas, chains, relays; and all that must be refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
import pytest_asyncio

from perilune.api.trajectory.v1.trajectory_pb2 import DTYPE_BFLOAT16, PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Manifest, SubscribeRequest
from perilune.channel import GRPC_OPTIONS, open_channel
from perilune.weights import RawTensor, State, make_delta
from perilune.weights import receiver as receivers
from perilune.weights.frames import RawChunk, chunk_frame, manifest_frame, read_frame
from perilune.weights.receiver import Receiver, StagedVersion
from perilune.weights.relay import Relay
from perilune.weights.server import SERVICE, Stream, Subscriber, WeightServer
from perilune.weights.shards import ShardedReceiver, assemble, assembled_versions
from tests.unit.weights.test_shards import two_ranks

RUN = "run"
NUM_ELEMENTS = 200_000
PATIENCE_S = 30


def state(number: int, size: int = NUM_ELEMENTS, name: str = "w", num_steps: int | None = None) -> State:
    """Version n is version n - 1 with a hundred elements moved by one."""
    values = np.random.default_rng(0).integers(0, 1 << 16, size).astype("<u2")
    for step in range(num_steps if num_steps is not None else number):
        values[np.random.default_rng(step + 1).integers(0, size, 100)] += 1
    return State.of(
        number,
        [
            RawTensor(name, DTYPE_BFLOAT16, (size // 2, 2), memoryview(values.tobytes())),
            RawTensor("fixed", DTYPE_BFLOAT16, (3,), memoryview(b"abcdef")),
        ],
    )


class Trainer(WeightServer):
    """Publishes states as the trainer's publisher does."""

    def __init__(self, rank: int = 0) -> None:
        super().__init__()
        self.rank = rank
        self.open()

    def open(self) -> None:
        before = self._streams.pop((RUN, "", self.rank), None)
        self._streams[RUN, "", self.rank] = Stream(leads=True)
        self.state: State | None = None
        if before:
            before.close()

    @property
    def stream(self) -> Stream:
        return self.stream_of(RUN, rank=self.rank)

    def publish(self, new: State, with_delta: bool = True) -> None:
        delta = make_delta(self.state, new) if self.state and with_delta else None
        self.stream.publish(new, delta, {"config.json": b"{}"})
        self.state = new


@dataclass
class Follower:
    """A receiver at work, and what it was handed."""

    receiver: Receiver
    versions: list[StagedVersion] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self) -> None:
        async for version in self.receiver.versions():
            async with self.changed:
                self.versions.append(version)
                self.changed.notify_all()

    @property
    def numbers(self) -> list[int]:
        return [version.manifest.version.number for version in self.versions]

    async def until(self, expected: State) -> None:
        async with self.changed, asyncio.timeout(PATIENCE_S):
            await self.changed.wait_for(lambda: self.versions and self.receiver.state.version == expected.version)
        last = self.versions[-1]
        assert last.manifest.version == expected.version
        assert [(t.name, bytes(t.data)) for t in last.tensors] == [(t.name, bytes(t.data)) for t in expected.tensors]


class World:
    """Servers and receivers of one test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._tasks: list[asyncio.Task[None]] = []
        self.trainer = Trainer()
        self.address = ""

    async def serve(self, weights: WeightServer) -> tuple[str, grpc.aio.Server]:
        server = grpc.aio.server(options=GRPC_OPTIONS)
        weights.add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._stack.push_async_callback(server.stop, None)
        return f"127.0.0.1:{port}", server

    def follow(self, *addresses: str, receiver: Receiver | None = None) -> Follower:
        follower = Follower(receiver or Receiver(RUN, "w"))
        follower.receiver.move(addresses or [self.address])
        task = asyncio.create_task(follower.follow())
        self._stack.push_async_callback(self._end, task)
        return follower

    async def relay(self, *addresses: str) -> tuple[str, grpc.aio.Server, Follower]:
        """A node that follows the addresses and serves on."""
        relay = Relay()
        address, server = await self.serve(relay)
        return address, server, self.follow(*addresses, receiver=relay.receiver(RUN, "relay"))

    @staticmethod
    async def _end(task: asyncio.Task[None]) -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(receivers, "LAST_RETRY_S", 0.5)
    async with AsyncExitStack() as stack:
        world = World(stack)
        world.address, _ = await world.serve(world.trainer)
        yield world


FULL_BYTES = 2 * NUM_ELEMENTS


# --- Whole, delta, chain --------------------------------------------------------------------------------------------


async def test_the_first_version_is_whole_and_the_next_a_small_change(world: World) -> None:
    follower = world.follow()
    world.trainer.publish(state(0))
    await follower.until(state(0))
    assert follower.versions[0].model_files == {"config.json": b"{}"}
    sent_before = world.trainer.stream.num_sent_bytes
    assert sent_before > FULL_BYTES
    world.trainer.publish(state(1))
    await follower.until(state(1))
    assert world.trainer.stream.num_sent_bytes - sent_before < FULL_BYTES / 100
    assert follower.versions[1].model_files == {"config.json": b"{}"}  # kept from the first one
    assert follower.numbers == [0, 1]


async def test_who_is_a_few_versions_behind_is_sent_the_chain_and_served_its_end(world: World) -> None:
    follower = world.follow()
    world.trainer.publish(state(0))
    await follower.until(state(0))
    late = Receiver(RUN, "late")
    late.state, late._sequence = follower.receiver.state, follower.receiver._sequence
    for number in range(1, 5):
        world.trainer.publish(state(number))
    before = late.num_received_bytes
    behind = world.follow(receiver=late)
    await behind.until(state(4))
    assert behind.numbers == [4]  # what lies between was verified, and not handed out
    assert late.num_received_bytes - before < FULL_BYTES / 25


async def test_an_anchor_goes_to_all_as_a_whole(world: World) -> None:
    follower = world.follow()
    world.trainer.publish(state(0))
    await follower.until(state(0))
    world.trainer.publish(state(1), with_delta=False)
    await follower.until(state(1))
    assert follower.receiver.num_received_bytes > 2 * FULL_BYTES


async def test_who_has_another_base_gets_the_whole(world: World) -> None:
    world.trainer.publish(state(0))
    world.trainer.publish(state(1))
    stranger = Receiver(RUN, "w")
    stranger.state = state(0, num_steps=7)  # the number is the same, the digest is not
    follower = world.follow(receiver=stranger)
    await follower.until(state(1))
    assert stranger.num_received_bytes > FULL_BYTES


async def test_links_that_together_are_larger_than_the_whole_are_forgotten(world: World) -> None:
    tiny = [state(number, size=400) for number in range(12)]
    for each in tiny:
        world.trainer.publish(each)
    links = world.trainer.stream._links
    assert 0 < sum(link.num_bytes for link in links) <= 806
    follower = world.follow()
    await follower.until(tiny[-1])


async def test_an_older_version_that_is_published_again_is_followed(world: World) -> None:
    """The trainer went back to its checkpoint, or an operator to a version that was better."""
    follower = world.follow()
    for number in range(3):
        world.trainer.publish(state(number))
        await follower.until(state(number))
    world.trainer.publish(state(1))
    await follower.until(state(1))
    assert follower.numbers == [0, 1, 2, 1]


async def test_a_trainer_whose_clock_is_behind_is_followed_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = world.follow()
    world.trainer.publish(state(5))
    await follower.until(state(5))
    monkeypatch.setattr("perilune.weights.server.time.time_ns", lambda: 1)
    world.trainer.open()
    world.trainer.publish(state(4))
    await follower.until(state(4))


# --- What must be refused -------------------------------------------------------------------------------------------


class Damaging(WeightServer):
    """A server between the trainer and a receiver that changes frames; each way of damage once."""

    def __init__(self, source: Trainer, damage: Callable[[list[bytes]], Sequence[bytes]]) -> None:
        super().__init__()
        self.damage: Callable[[list[bytes]], Sequence[bytes]] | None = damage
        self._source = source
        self.asked_with: list[int | None] = []

    async def _subscribe(self, request: SubscribeRequest, context: object) -> AsyncIterator[bytes]:
        self.asked_with.append(request.have.number if request.HasField("have") else None)
        version: list[bytes] = []
        async for frame in self._source._subscribe(request, context):
            version.append(frame)
            if not isinstance(read_frame(frame), Manifest | RawChunk):
                damage, self.damage = self.damage, None
                for each in damage(version) if damage else version:
                    yield each
                if damage:  # the connection ends there
                    return
                version = []


def flipped(frames: list[bytes], place: int) -> list[bytes]:
    damaged = bytearray(frames[1])
    damaged[place] ^= 0x10
    return [frames[0], bytes(damaged), *frames[2:]]


def changed_manifest(frames: list[bytes], change: Callable[[Manifest], object]) -> list[bytes]:
    manifest = read_frame(frames[0])
    assert isinstance(manifest, Manifest)
    change(manifest)
    return [manifest_frame(manifest), *frames[1:]]


def moved_chunk(frames: list[bytes], offset: int) -> list[bytes]:
    chunk = read_frame(frames[1])
    assert isinstance(chunk, RawChunk)
    return [frames[0], chunk_frame(offset, chunk.data), *frames[2:]]


DAMAGES: dict[str, Callable[[list[bytes]], Sequence[bytes]]] = {
    "a bit in the middle": lambda frames: flipped(frames, len(frames[1]) // 2),
    "a bit in a frame's head": lambda frames: flipped(frames, 0),
    "a bit at the end": lambda frames: flipped(frames, -1),
    "truncated": lambda frames: frames[:-2],
    "no commit": lambda frames: frames[:-1],
    "reordered": lambda frames: [frames[0], *frames[:0:-1]],
    "no manifest": lambda frames: frames[1:],
    "twice": lambda frames: [*frames[:2], *frames[1:]],
    "elsewhere": lambda frames: moved_chunk(frames, 1),
    "no frame": lambda frames: [frames[0], b"\xff\xff\xff", *frames[2:]],
    "empty": lambda frames: [frames[0], b"", *frames[2:]],
    "another digest": lambda frames: changed_manifest(frames, lambda m: setattr(m.version, "digest", "0" * 32)),
    "another tensor's digest": lambda frames: changed_manifest(
        frames, lambda m: setattr(m.tensors[0], "digest", m.tensors[1].digest)
    ),
    "a huge payload": lambda frames: changed_manifest(frames, lambda m: setattr(m, "payload_bytes", 1 << 60)),
    "another encoding": lambda frames: changed_manifest(frames, lambda m: setattr(m.tensors[0], "encoding", 3)),
    "an old publication": lambda frames: changed_manifest(frames, lambda m: setattr(m, "sequence", 1)),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_is_damaged_is_dropped_and_asked_for_again(
    world: World, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    between = Damaging(world.trainer, lambda frames: frames)
    address, _ = await world.serve(between)
    follower = world.follow(address)
    world.trainer.publish(state(3))
    await follower.until(state(3))
    between.damage = DAMAGES[damage]
    world.trainer.publish(state(4))
    await follower.until(state(4))
    assert follower.numbers == [3, 4]  # never anything else
    assert between.asked_with[-1] == 3
    assert any("asking again" in record.message for record in caplog.records)


async def test_an_old_stream_that_is_replayed_is_refused(world: World, caplog: pytest.LogCaptureFixture) -> None:
    recorded: list[bytes] = []
    between = Damaging(world.trainer, lambda frames: recorded.extend(frames) or frames)
    address, _ = await world.serve(between)
    follower = world.follow(address)
    world.trainer.publish(state(1))
    await follower.until(state(1))
    assert recorded
    world.trainer.publish(state(2))
    await follower.until(state(2))
    between.damage = lambda _: recorded
    world.trainer.publish(state(3))
    await follower.until(state(3))
    assert follower.numbers == [1, 2, 3]
    assert any("replays an old stream" in record.message for record in caplog.records)


async def test_another_architecture_is_refused_before_it_is_sent(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    follower = world.follow()
    world.trainer.publish(state(1))
    await follower.until(state(1))
    world.trainer.publish(state(2, name="other"))
    async with asyncio.timeout(PATIENCE_S):
        while not any("another architecture" in record.message for record in caplog.records):
            await asyncio.sleep(0.05)
    assert "it lacks w (100000, 2) DTYPE_BFLOAT16; instead it has other (100000, 2) DTYPE_BFLOAT16" in caplog.text
    assert follower.receiver.num_received_bytes < 1.5 * FULL_BYTES
    world.trainer.publish(state(3))
    await follower.until(state(3))
    assert follower.numbers == [1, 3]


async def test_a_run_that_is_not_served_is_not_found(world: World) -> None:
    async with open_channel(world.address) as channel:
        subscribe = channel.unary_stream(
            f"/{SERVICE.full_name}/Subscribe", request_serializer=SubscribeRequest.SerializeToString
        )
        with pytest.raises(grpc.aio.AioRpcError, match="no run 'other' is served here") as raised:
            await subscribe(SubscribeRequest(run_id="other")).read()
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


# --- Slow ones ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def slow_call(address: str) -> AsyncIterator[grpc.aio.UnaryStreamCall[SubscribeRequest, bytes]]:
    """A subscriber that reads only when it is told to, over a connection of its own."""
    async with grpc.aio.insecure_channel(
        address,
        [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.http2.lookahead_bytes", 65536),
            ("grpc.http2.bdp_probe", 0),
        ],
    ) as channel:
        subscribe = channel.unary_stream(
            f"/{SERVICE.full_name}/Subscribe", request_serializer=SubscribeRequest.SerializeToString
        )
        yield subscribe(SubscribeRequest(run_id=RUN, worker_id="slow"))


async def until_nothing_is_sent(stream: Stream) -> None:
    """Waits until the server has noticed that the callers are gone."""
    assert stream._whole
    async with asyncio.timeout(30):
        while any(payload.num_sending for payload in (stream._whole.payload, *stream._overtaken)):
            await asyncio.sleep(0.01)


async def test_slow_subscribers_hold_back_nobody_and_bound_what_is_kept(world: World) -> None:
    size = 8_000_000
    follower = world.follow()
    async with AsyncExitStack() as stack:
        world.trainer.publish(state(0, size))
        await follower.until(state(0, size))
        slow = []
        for number in range(1, 6):
            call = await stack.enter_async_context(slow_call(world.address))
            manifest = read_frame(await call.read())
            assert isinstance(manifest, Manifest)
            assert manifest.version.number == number - 1
            slow.append(call)
            world.trainer.publish(state(number, size), with_delta=False)
            await follower.until(state(number, size))
        assert follower.numbers == [0, 1, 2, 3, 4, 5]
        assert len(world.trainer.stream._overtaken) == 2
        ends = []
        for call in slow:
            numbers = []
            while not numbers or numbers[-1] != 5:
                frame = read_frame(await call.read())
                if not isinstance(frame, RawChunk | Manifest):
                    numbers.append(frame.version.number)
            ends.append(numbers)
        # The slowest two ended what they had begun; who came later began anew with the newest.
        assert ends == [[0, 5], [1, 5], [5], [5], [5]]
    await until_nothing_is_sent(world.trainer.stream)
    world.trainer.publish(state(6, size))
    assert world.trainer.stream._overtaken == []


async def test_who_was_told_what_comes_counts_before_the_first_frame_of_it() -> None:
    stream = Stream(leads=True)
    async with AsyncExitStack() as stack:
        slow = []
        for number in range(4):
            stream.publish(state(number), None, {})
            frames = await stack.enter_async_context(aclosing(stream.send(Subscriber(None, 0))))
            assert isinstance(read_frame(await anext(frames)), Manifest)
            slow.append(frames)
        assert len(stream._overtaken) == 2
        nexts = [read_frame(await anext(frames)) for frames in slow]
        assert [isinstance(frame, RawChunk) for frame in nexts] == [True, True, False, True]
        assert isinstance(nexts[2], Manifest)
        assert nexts[2].version.number == 3
    stream.publish(state(4), None, {})
    assert stream._overtaken == []


# --- Relays ---------------------------------------------------------------------------------------------------------


async def test_a_relay_serves_on_and_the_trainer_sends_once(world: World) -> None:
    address, _, relay = await world.relay(world.address)
    below = [world.follow(address, world.address) for _ in range(4)]
    world.trainer.publish(state(0))
    for follower in [relay, *below]:
        await follower.until(state(0))
    world.trainer.publish(state(1))
    for follower in [relay, *below]:
        await follower.until(state(1))
        assert follower.numbers == [0, 1]
    assert world.trainer.stream.num_sent_bytes < 1.1 * FULL_BYTES
    assert {follower.receiver.source for follower in below} == {address}
    newcomer = world.follow(address)
    await newcomer.until(state(1))
    assert newcomer.versions[0].model_files == {"config.json": b"{}"}


async def test_frames_go_on_while_they_arrive(world: World) -> None:
    """Half a version is with the relay; those below have it too, before the other half comes."""
    relay = Relay()
    address, _ = await world.serve(relay)
    whole = state(0, size=4_000_000)
    payload = relay.stream_of(RUN).begin(whole.manifest)
    payload.add(chunk_frame(0, whole.tensors[0].data[: 1 << 20]))
    async with slow_call(address) as call:
        manifest, chunk = read_frame(await call.read()), read_frame(await call.read())
        assert isinstance(manifest, Manifest)
        assert manifest.version == whole.version
        assert isinstance(chunk, RawChunk)
        assert chunk.data == whole.tensors[0].data[: 1 << 20]
        relay.stream_of(RUN).failed(payload)  # and the other half never comes
        relay.stream_of(RUN).begin(whole.manifest)
        assert isinstance(read_frame(await call.read()), Manifest)


async def test_the_children_of_a_relay_that_dies_go_to_the_next_above(world: World) -> None:
    first, _, _ = await world.relay(world.address)
    second, server, _ = await world.relay(first, world.address)
    child = world.follow(second, first, world.address)
    world.trainer.publish(state(0))
    await child.until(state(0))
    assert child.receiver.source == second
    await server.stop(None)
    world.trainer.publish(state(1))
    await child.until(state(1))
    assert child.receiver.source == first
    assert child.receiver.num_received_bytes < 1.2 * FULL_BYTES  # as a change


async def test_a_relay_that_dies_within_a_version_costs_its_children_nothing_but_time(world: World) -> None:
    relay = Relay()
    address, server = await world.serve(relay)
    whole = state(0, size=4_000_000)
    payload = relay.stream_of(RUN).begin(whole.manifest)
    payload.add(chunk_frame(0, whole.tensors[0].data[: 1 << 20]))
    child = world.follow(address, world.address)
    async with asyncio.timeout(PATIENCE_S):
        while child.receiver.num_received_bytes < 1 << 20:
            await asyncio.sleep(0.01)
    world.trainer.publish(whole)
    await server.stop(None)
    await child.until(whole)
    assert child.numbers == [0]


async def test_a_relay_that_hangs_is_left_for_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "STALL_S", 0.5)
    silent, _ = await world.serve(Relay())
    child = world.follow(silent, world.address)
    world.trainer.publish(state(2))
    child.receiver.expect(state(2).version)
    await child.until(state(2))
    assert child.receiver.source == world.address


async def test_a_child_that_is_ahead_of_its_parent_waits_for_it(world: World) -> None:
    address, _, relay = await world.relay(world.address)
    world.trainer.publish(state(0))
    await relay.until(state(0))
    behind, _ = await world.serve(stale := Relay())
    stale.stream_of(RUN).arrived(relay.receiver.state.manifest, stale.stream_of(RUN).begin(state(0).manifest), state(0))
    child = world.follow(address)
    world.trainer.publish(state(1))
    await child.until(state(1))
    child.receiver.move([behind])
    world.trainer.publish(state(2))
    await relay.until(state(2))
    assert child.numbers[-1] == 1  # not 0, which its new parent has
    child.receiver.move([address])
    await child.until(state(2))
    assert 0 not in child.numbers[child.numbers.index(1) :]


async def test_a_corrupt_relay_poisons_nobody_below(world: World) -> None:
    between = Damaging(world.trainer, lambda frames: flipped(frames, 5000))
    bad, _ = await world.serve(between)
    address, _, relay = await world.relay(bad)
    child = world.follow(address)
    world.trainer.publish(state(0))
    await relay.until(state(0))
    await child.until(state(0))
    assert (relay.numbers, child.numbers) == ([0], [0])


async def test_a_receiver_moves_between_two_versions(world: World) -> None:
    other = Trainer()
    address, _ = await world.serve(other)
    child = world.follow()
    world.trainer.publish(state(0))
    await child.until(state(0))
    child.receiver.move([address])
    other.publish(state(1))
    await child.until(state(1))
    assert child.receiver.source == address


async def test_adapters_are_a_stream_of_their_own(world: World) -> None:
    adapter = State.of(7, [RawTensor("lora_A", DTYPE_BFLOAT16, (2, 2), memoryview(b"abcdefgh"))])
    world.trainer._streams[RUN, "poet", 0] = Stream(leads=True)
    world.trainer.stream_of(RUN, "poet").publish(adapter, None, {"adapter_config.json": b"{}"})
    world.trainer.publish(state(0))
    model, poet = world.follow(), world.follow(receiver=Receiver(RUN, "w", adapter="poet"))
    await model.until(state(0))
    await poet.until(adapter)
    assert poet.versions[0].model_files == {"adapter_config.json": b"{}"}
    assert (model.numbers, poet.numbers) == ([0], [7])


async def test_the_parts_of_a_sharded_trainer_are_put_together(world: World) -> None:
    ranks = [Trainer(), Trainer()]
    receivers = [Receiver(RUN, "w") for _ in ranks]
    for rank, receiver in zip(ranks, receivers, strict=True):
        address, _ = await world.serve(rank)
        receiver.move([address])
    async with asyncio.timeout(PATIENCE_S), aclosing(assembled_versions(receivers)) as versions:
        for number in range(3):
            states, wide, bias = two_ranks(number, seed=number)
            for rank, state_of_rank in zip(ranks, states, strict=True):
                rank.publish(state_of_rank)
            whole = await anext(versions)
            assert whole.manifest.version == states[0].version
            assert {raw.name: bytes(raw.data) for raw in whole.tensors} == {
                "wide": wide.tobytes(),
                "bias": bias.tobytes(),
            }
            assert whole.model_files == {"config.json": b"{}"}


async def test_a_trainer_may_start_again_with_another_number_of_ranks(world: World) -> None:
    """The part of the first rank is there before anybody knows that it is one; all of it goes through a relay."""
    relay, parts = Relay(), dict[int, Receiver]()
    relay_address, _ = await world.serve(relay)

    def receiver_of(rank: int) -> Receiver:
        return parts.setdefault(rank, Receiver(RUN, "child", rank=rank))

    above, child = relay.policy_receiver(RUN, "relay", is_adapted=False), ShardedReceiver(receiver_of)

    def move(*rank_addresses: str) -> None:
        above.move([world.address], rank_addresses)
        child.move([relay_address, world.address], rank_addresses)

    async def next_of_both(*states: State) -> None:
        expected = {raw.name: bytes(raw.data) for raw in (assemble(states) if len(states) > 1 else states[0]).tensors}
        for versions in (of_above, of_child):
            whole = await anext(versions)
            assert whole.manifest.version == states[0].version
            assert {raw.name: bytes(raw.data) for raw in whole.tensors} == expected
        assert child.source == relay_address

    async with (
        asyncio.timeout(PATIENCE_S),
        aclosing(above.versions()) as of_above,
        aclosing(child.versions()) as of_child,
    ):
        move()
        wholes, cut = [state(0), state(3)], [two_ranks(number, seed=number)[0] for number in (1, 2)]
        world.trainer.publish(wholes[0])
        await next_of_both(wholes[0])
        world.trainer.publish(cut[0][0])
        following = asyncio.create_task(next_of_both(*cut[0]))
        while parts[0].held is None or parts[0].held.manifest.version != cut[0][0].version:
            await asyncio.sleep(0.01)
        second = Trainer(rank=1)
        address, _ = await world.serve(second)
        second.publish(cut[0][1])
        move(world.address, address)
        await following
        for trainer, part in zip((world.trainer, second), cut[1], strict=True):
            trainer.publish(part)
        await next_of_both(*cut[1])
        world.trainer.publish(wholes[1])
        move()
        await next_of_both(wholes[1])


async def test_a_run_that_loses_its_trainer_for_a_while_goes_on(world: World) -> None:
    follower = world.follow()
    world.trainer.publish(state(0))
    await follower.until(state(0))
    follower.receiver.move([])
    world.trainer.open()  # the streams of before end
    follower.receiver.move([world.address])
    world.trainer.publish(state(1))
    await follower.until(state(1))


def test_versions_are_told_apart_by_their_digests() -> None:
    assert state(1).version == PolicyVersion(number=1, digest=state(1).version.digest)
    assert state(1).version != state(1, num_steps=2).version
