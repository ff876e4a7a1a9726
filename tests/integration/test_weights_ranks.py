"""A trainer of two processes, each with its part of the policy: what receivers put together is the whole."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import numpy as np

from perilune.weights import State
from perilune.weights.receiver import Receiver
from perilune.weights.shards import assembled_versions, region
from tests.integration.streaming_rank import LAYOUTS, NUM_VERSIONS

NUM_RANKS = 2
PATIENCE_S = 120


@contextmanager
def ranks(folder: Path) -> Iterator[list[Popen[bytes]]]:
    common = {"WORLD_SIZE": str(NUM_RANKS), "GLOO_SOCKET_IFNAME": "lo", "RANKS_FOLDER": str(folder)}
    processes = [
        Popen(
            [sys.executable, "-m", "tests.integration.streaming_rank"],
            env=os.environ | common | {"RANK": str(rank)},
            stdin=PIPE,
        )
        for rank in range(NUM_RANKS)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def said(folder: Path, processes: list[Popen[bytes]]) -> list[dict[str, Any]]:
    """What every rank says when it has published."""
    files = [folder / f"rank-{rank}.json" for rank in range(NUM_RANKS)]
    async with asyncio.timeout(PATIENCE_S):
        while not all(file.exists() for file in files):
            assert all(process.poll() is None for process in processes), "a rank ended; what it said is above"
            await asyncio.sleep(0.05)
    return [json.loads(file.read_text()) for file in files]


async def test_parts_of_two_processes_make_the_whole(tmp_path: Path) -> None:
    with ranks(tmp_path) as processes:
        told = await said(tmp_path, processes)
        assert told[0]["contents"] == told[1]["contents"]
        for layout in LAYOUTS:
            expected = {name: bytes.fromhex(content) for name, content in told[0]["contents"][layout].items()}
            receivers = [Receiver(layout, "fleet") for _ in range(NUM_RANKS)]
            for receiver, rank in zip(receivers, told, strict=True):
                receiver.move([rank["address"]])
            async with asyncio.timeout(PATIENCE_S), aclosing(assembled_versions(receivers)) as versions:
                whole = await anext(versions)
            states = [receiver.state for receiver in receivers if receiver.state]
            assert whole.manifest.version.number == NUM_VERSIONS - 1
            assert {raw.name: bytes(raw.data) for raw in whole.tensors} == expected
            check_shares(states, expected)
            check_own_layout(states, expected)


def check_shares(states: list[State], expected: dict[str, bytes]) -> None:
    """Nobody gathered: every rank streamed its part, and together they streamed everything once."""
    num_bytes = [state.manifest.num_bytes for state in states]
    assert sum(num_bytes) == sum(map(len, expected.values()))
    assert all(0 < each < sum(num_bytes) for each in num_bytes)


def check_own_layout(states: list[State], expected: dict[str, bytes]) -> None:
    """An engine of two tensor-parallel ranks asks for its columns of a matrix, however the trainer cut it."""
    name = "model.layers.0.mlp.down_proj.weight"
    whole = np.frombuffer(expected[name], "<u2").reshape(32, 48)
    for start in (0, 24):
        columns = region(states, name, (0, start), (32, 24))
        assert bytes(columns.data) == whole[:, start : start + 24].tobytes()
