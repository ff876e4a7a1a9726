"""The benchmark of a card, as far as a machine without one goes: tiny shapes, and words where a card is needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.report import Figure
from perilune.models.device import has_driver

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_bar_is_of_the_value_or_of_the_ratio() -> None:
    assert gpu.Bar(0.6, at_least=False).is_met(Figure.against(0.1, 0.5, "s"))
    assert not gpu.Bar(3.0, of_ratio=True).is_met(Figure.against(100.0, 250.0, "tokens/s"))
    assert gpu.Bar(3.0, of_ratio=True).is_met(Figure.against(100.0, 300.0, "tokens/s"))


def test_the_time_of_all_steps_is_kept() -> None:
    figures, problems = gpu.run_steps(gpu.STEPS[:2], small=True, limit_s=0.0, path=None)
    assert figures == {}
    assert problems == {step.name: "was not begun: the 0 s of all steps were over" for step in gpu.STEPS[:2]}


def test_a_step_that_takes_too_long_is_ended_and_the_next_one_runs(tmp_path: Path) -> None:
    slow = gpu.Step("engine", 0.2, "ended while it still imports")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gpu, "SMALL_LIMIT_S", 0.2)
        figures, problems = gpu.run_steps([slow, gpu.Step("exact", 0.2, "")], True, 60, tmp_path / "figures")
    assert figures == {}
    assert problems == {"engine": "was ended after its limit of 0 s", "exact": "was ended after its limit of 0 s"}
    assert [json.loads(line)["step"] for line in (tmp_path / "figures").read_text().splitlines()] == ["engine", "exact"]


def test_steps_run_with_tiny_shapes(tmp_path: Path) -> None:
    path = tmp_path / "figures"
    done = run("--small", "--step", "exact", "--step", "longest-row", "--json", str(path))
    assert done.returncode == 0, done.stderr
    found = {row["name"]: row for row in map(json.loads, path.read_text().splitlines()[1:])}
    assert found["exact: largest gap of a log-probability"]["value"] < 1e-4
    assert found["longest-row: tokens"]["value"] == 256


@pytest.mark.skipif(has_driver(), reason="NVIDIA's driver is loaded here")
def test_without_a_card_it_says_so() -> None:
    done = run()
    assert done.returncode == 1
    assert "needs a GPU: no NVIDIA driver. With --small" in done.stderr


def test_the_wheels_are_those_of_the_constraints() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    wheels = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "benchmarks/gpu-wheels.txt").read_text(), re.M))
    assert {name: pins[name] for name in wheels if name in pins} == {n: v for n, v in wheels.items() if n in pins}
