"""Two processes that train together do what one does, to rounding; and each can go on from where the other was."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from subprocess import run

import pytest
import torch
from safetensors.torch import load_file

from services.trainer.ranks.group import Ranks
from services.trainer.versions.checkpoint import STATE_FILE, Checkpoints
from tests.integration.training_rank import Job
from tests.unit.trainer.models import recipe
from tests.unit.vision.families import LLAVA

PATIENCE_S = 300
# Of time, and of how well a delta compresses: ranks compress parts.
MEASURED = ("train_seconds", "tokens_per_second", "sent_share")
# Rows of 48 tokens: an odd number of them a step, so that one rank has a row less.
COMMON = {"microbatch_tokens": 48, "num_threads": 1, "checkpoint_every": 1}
CORRECTED = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "steps_per_iteration": 2,
    "epochs_per_iteration": 2,
    "objective": {"correction": "adaptive"},
}
HALF = {"precision": "bf16", "activation_checkpointing": "layers", "optimizer": "sgd", "learning_rate": 0.1}
MOMENTS = {
    "learning_rate": 1e-3,
    "steps_per_iteration": 3,
    "objective": {"type": "grpo", "kl_weight": 0.1},  # towards version 0, which is dealt out as well
}


def train_by_two(folder: Path, *jobs: Job) -> None:
    file = folder / "jobs.json"
    file.write_text(json.dumps([asdict(job) for job in jobs]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "tests.integration.training_rank", str(file)]
    run(command, env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"}, check=True, timeout=PATIENCE_S)


def metrics_of(job: Job) -> list[dict[str, float]]:
    return json.loads((Path(job.folder) / "metrics.json").read_text())


def same(metrics: list[dict[str, float]], others: list[dict[str, float]], rel: float = 1e-5, abs: float = 1e-6) -> None:
    """Equal to rounding, but for the time it took."""
    assert len(metrics) == len(others)
    for one, other in zip(metrics, others, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - set(MEASURED):
            assert other[name] == pytest.approx(one[name], rel=rel, abs=abs), name


def same_checkpoints(folder: Path, other: Path, number: int) -> None:
    """Weights and the optimiser's state, laid out alike and equal to rounding."""
    paths = [Checkpoints(each / "checkpoints").path_of(number) for each in (folder, other)]
    assert {file.name for file in paths[0].iterdir()} == {file.name for file in paths[1].iterdir()}
    weights = [load_file(path / "model.safetensors") for path in paths]
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
    states = [torch.load(path / STATE_FILE, weights_only=True)["optimizer"] for path in paths]
    assert states[0]["param_groups"][0]["params"] == states[1]["param_groups"][0]["params"]
    torch.testing.assert_close(states[0]["state"], states[1]["state"], rtol=1e-4, atol=1e-6)


def test_two_ranks_train_as_one_does(tmp_path: Path) -> None:
    corrected = recipe(**COMMON, **CORRECTED).model_dump_json()
    with_moments = recipe(**COMMON, **MOMENTS).model_dump_json()
    one, two, one_then_two = (tmp_path / name for name in ("one", "two", "one-then-two"))
    Job(with_moments, str(one), -1, 1).train(Ranks())
    shutil.copytree(one, one_then_two)
    alone = Job(corrected, str(tmp_path / "corrected-one"), -1, 2)
    together = Job(corrected, str(tmp_path / "corrected-two"), -1, 2)
    begun = Job(with_moments, str(two), -1, 2)
    continued = Job(with_moments, str(one_then_two), 1, 1)
    half = recipe(**COMMON, **HALF).model_dump_json()
    half_together = Job(half, str(tmp_path / "half-two"), -1, 2)
    seeing = recipe(**COMMON, **CORRECTED, model={"create": LLAVA}).model_dump_json()
    seeing_together = Job(seeing, str(tmp_path / "seeing-two"), -1, 2)
    train_by_two(tmp_path, together, begun, continued, half_together, seeing_together)

    # Each row's gradient is rounded to bf16, and they are summed in float32, however many ranks there are.
    same(metrics_of(half_together), Job(half, str(tmp_path / "half-one"), -1, 2).train(Ranks()), rel=1e-3, abs=1e-4)
    same(metrics_of(together), alone.train(Ranks()))
    same_checkpoints(tmp_path / "corrected-one", tmp_path / "corrected-two", 2)

    # Some rows have a picture and some have none; the encoder lies on both ranks.
    same(metrics_of(seeing_together), Job(seeing, str(tmp_path / "seeing-one"), -1, 2).train(Ranks()))
    same_checkpoints(tmp_path / "seeing-one", tmp_path / "seeing-two", 2)

    goes_on = Job(with_moments, str(one), 1, 1).train(Ranks())
    same(metrics_of(continued), goes_on)
    same(metrics_of(begun)[1:], goes_on)
    for number in (0, 1):
        same_checkpoints(one, two, number)
    for folder in (two, one_then_two):
        same_checkpoints(one, folder, 2)
    third = Job(with_moments, str(one), 2, 1).train(Ranks())
    same(Job(with_moments, str(two), 2, 1).train(Ranks()), third)
    same_checkpoints(one, two, 3)
