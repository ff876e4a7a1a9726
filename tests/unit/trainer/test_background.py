"""What is written beside training is what was there when it was begun, and a write that fails is heard of."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from perilune.errors import StateError
from services.trainer.versions.background import BackgroundWriter
from services.trainer.versions.checkpoint import Checkpoints, TrainerState
from tests.unit.trainer.models import same_bits, state, tiny_policy


def a_state(number: int) -> TrainerState:
    return TrainerState(number, "origin", {}, [], {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(2.0)}}})


def test_training_that_goes_on_does_not_change_what_is_written(tmp_path: Path) -> None:
    policy, writer, checkpoints = tiny_policy(), BackgroundWriter(), Checkpoints(tmp_path)
    before, go_on = state(policy), threading.Event()
    weights = writer.copied(policy.model.state_dict(), "weights")
    optimizer = writer.copied(a_state(1).optimizer, "optimizer")

    def write() -> None:
        assert go_on.wait(10)
        checkpoints.save(policy, TrainerState(1, "origin", {}, [], optimizer), weights)

    writer.start(write)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.zero_()
    assert checkpoints.numbers() == []  # nothing half-written is a checkpoint
    go_on.set()
    writer.wait()
    found, read = checkpoints.load(1, "origin")
    assert same_bits(state(found), before)
    assert read.optimizer["state"][0]["exp_avg"].tolist() == [1.0, 1.0, 1.0]


def test_memory_is_used_again_once_it_is_written_and_ties_stay() -> None:
    writer, tied = BackgroundWriter(), torch.arange(4.0)
    first = writer.copied({"a": tied, "b": [tied, 7]}, "weights")
    assert first["a"].data_ptr() == first["b"][0].data_ptr() != tied.data_ptr()
    assert first["b"][1] == 7
    again = writer.copied({"a": tied + 1, "b": [tied, 7]}, "weights")
    assert again["a"].data_ptr() == first["a"].data_ptr()
    assert again["a"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_write_that_fails_is_raised_at_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    writer = BackgroundWriter()
    writer.start(Checkpoints(tmp_path / "checkpoints").save, tiny_policy(), a_state(1), None)
    with pytest.raises(StateError, match="cannot write the checkpoint"):
        writer.copied({}, "weights")
    writer.wait()  # it is said once
