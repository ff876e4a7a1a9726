"""The warm-up as a command: what it writes, and what it refuses before torch is even loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from services.trainer.stages import sft

RECIPE = """
name = "tiny"
[model.create]
task = "search"
hidden_size = 16
num_layers = 1
[warmup]
task = "search"
num_steps = 3
batch_size = 4
[prompts]
source = "task"
name = "search"
[[reward.graders]]
name = "exact"
[trainer]
num_iterations = 1
num_threads = 1
"""


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sft", *arguments])
    sft.main()


def test_it_writes_a_model_and_says_how_it_went(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    _main(monkeypatch, str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "model"), "--set", "warmup.num_steps=5")
    assert "step 5/5  loss " in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.hidden_size == 16


def test_it_refuses_to_overwrite_and_to_do_nothing(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    with pytest.raises(SystemExit, match="exists already"):
        _main(monkeypatch, str(path), "--out", str(tmp_path))
    path.write_text(RECIPE.replace("[warmup]", "[nothing]"))
    with pytest.raises(SystemExit, match="nothing"):
        _main(monkeypatch, str(path), "--out", str(tmp_path / "model"))
