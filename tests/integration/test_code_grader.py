"""Code answers scored by the reward service through a sandbox: two real services."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK
from perilune.client import AsyncRewardClient, grader

Start = Callable[..., tuple["subprocess.Popen[bytes]", str]]

APPS = json.dumps({"inputs": ["1 2", "5 5"], "outputs": ["3", "10"]})
HUMANEVAL = json.dumps(
    {
        "prompt": "def two(n):\n",
        "entry_point": "two",
        "test": "def check(f):\n    assert f(3) == 6\n    assert f(0) == 0",
    }
)
ADD = "I add them.\n```python\nprint(sum(map(int, input().split())))\n```"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts services; each call gives the process and its address."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, **settings: str) -> tuple[subprocess.Popen[bytes], str]:
        ready = tmp_path / f"{name}{len(processes)}.json"
        given = {"PERILUNE_LISTEN": "127.0.0.1:0", "PERILUNE_READY_FILE": str(ready), **settings}
        process = subprocess.Popen([sys.executable, "-m", f"services.{name}"], env=os.environ | given)
        processes.append(process)
        while not ready.exists():
            assert process.poll() is None, f"{name} ended before it was ready"
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        return process, json.loads(ready.read_text())["address"]

    yield start
    for process in processes:
        process.kill()
        process.wait()


async def test_code_is_scored_in_the_sandbox_and_never_zero_for_its_absence(start: Start) -> None:
    sandbox, sandbox_address = start("sandbox", PERILUNE_SANDBOX_NUM_SLOTS="2")
    _, address = start("reward", PERILUNE_SANDBOX_ADDRESS=sandbox_address, PERILUNE_SERVE_RUNS="0")
    stdio = grader("code", options={"format": "apps"})
    part = grader("code", options={"format": "apps", "partial": True})
    calls = grader("code", options={"format": "humaneval"})
    async with AsyncRewardClient(address, deadline_s=120.0) as rewards:
        answers = {
            "right": (ADD, APPS, stdio),
            "wrong": (ADD.replace("sum", "max"), APPS, stdio),
            "half": ("```python\nprint(3)\n```", APPS, part),
            "called": ("```python\ndef two(n): return n * 2\n```", HUMANEVAL, calls),
            "completed": ("    return n + n\n", HUMANEVAL, calls),
            "cheats": ("```python\nimport os\nos._exit(0)\n```", HUMANEVAL, calls),
            "says nothing": ("", HUMANEVAL, calls),
        }
        scores = dict(
            zip(
                answers,
                await asyncio.gather(
                    *(rewards.score(response, reference, [choice]) for response, reference, choice in answers.values())
                ),
                strict=True,
            )
        )
        assert {name: score.status for name, score in scores.items()} == dict.fromkeys(answers, SCORE_STATUS_OK)
        assert {name: score.value for name, score in scores.items()} == {
            **{"right": 1.0, "wrong": 0.0, "half": 0.5, "called": 1.0, "completed": 1.0, "cheats": 0.0},
            "says nothing": 0.0,
        }
        assert "word 1" in scores["wrong"].components[0].evidence["why"]
        broken = await rewards.score(ADD, "no row", [stdio])
        assert (broken.status != SCORE_STATUS_OK, broken.HasField("value")) == (True, False)

        sandbox.kill()
        sandbox.wait()
        away = await rewards.score(ADD, APPS, [stdio])
        assert (away.status != SCORE_STATUS_OK, away.HasField("value")) == (True, False)
