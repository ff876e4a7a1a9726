"""`perilune sft` on tiny models: what it makes, what it leaves out, and that it goes on to the same bits."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from perilune.errors import InvalidInputError, StateError
from perilune.recipe import CreateModel
from perilune.sft.folder import SftFolder, open_folder
from perilune.sft.plan import read_plan
from services.trainer.learner import InterruptedTraining, never
from services.trainer.policy.created import create_policy
from services.trainer.sft.display import Display
from services.trainer.sft.training import train
from tests.unit.trainer.models import TINY

pytestmark = pytest.mark.slow

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"which two of {n}"},
            {"role": "assistant", "content": "none " * n + "yes"},
        ]
    }
    for n in range(1, 13)
]
KEYS = ("defaults.batch_size=4", "defaults.learning_rate=1e-2", "defaults.checkpoint_every=2", "trainer.num_threads=1")


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sft") / "model"
    create_policy(CreateModel.model_validate(TINY), seed=0).save(path)
    return path


def folder_of(model: Path, data: Path, out: Path, *overrides: str, **flags: Any) -> SftFolder:
    return open_folder(out, read_plan([data], flags, str(model), None, [*KEYS, *overrides]))


def run(folder: SftFolder, should_stop: Callable[[], bool] = never) -> dict[str, Any]:
    return train(folder, should_stop, Display())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_model_is_made_that_others_load(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", ROWS)
    keys = ("defaults.num_heldout=2", "defaults.evaluate_every=3", "defaults.num_generated=1")
    folder = folder_of(model, data, tmp_path / "out", *keys, epochs=4)
    report = run(folder)
    (stage,) = report["stages"]
    assert (stage["num_examples"], stage["num_heldout"], stage["num_steps"]) == (10, 2, 10)
    assert json.loads(folder.report.read_text()) == report
    steps = lines(folder.metrics)
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert [step["step"] for step in steps if "heldout_loss" in step] == [3, 6, 9, 10]
    assert steps[-1]["heldout_loss"] == stage["heldout_loss"] < steps[2]["heldout_loss"]
    answers = lines(folder.generated)
    assert [answer["step"] for answer in answers] == [3, 6, 9, 10]
    assert answers[0]["reference"].endswith("yes")
    assert AutoModelForCausalLM.from_pretrained(folder.model).num_parameters() > 0
    assert (
        AutoTokenizer.from_pretrained(folder.model).chat_template == AutoTokenizer.from_pretrained(model).chat_template
    )
    names = [path.name for path in sorted(folder.checkpoints.iterdir())]
    assert names == ["stage-0-step-000006", "stage-0-step-000008"]
    assert AutoModelForCausalLM.from_pretrained(folder.checkpoints / names[0]).num_parameters() > 0
    assert not folder.progress.exists()


def test_rows_that_are_not_learnt_from_are_counted_and_named(model: Path, tmp_path: Path) -> None:
    data = written(
        tmp_path / "rows.jsonl", [*ROWS, {"text": "yes " * 40}, 7, {"prompt": "yes " * 40, "completion": "no"}]
    )
    folder = folder_of(model, data, tmp_path / "dropped", max_length=30)
    assert run(folder)["stages"][0]["num_left_out"] == {"broken": 1, "too long": 2}
    assert [(row["where"].rpartition(":")[2], row["kind"]) for row in lines(folder.left_out)] == [
        ("14", "broken"), ("13", "too long"), ("15", "too long")
    ]  # fmt: skip
    folder = folder_of(model, data, tmp_path / "cut", "defaults.too_long=truncate", max_length=30)
    (stage,) = run(folder)["stages"]
    assert (stage["num_examples"], stage["num_truncated"]) == (13, 2)
    assert stage["num_left_out"] == {"broken": 1, "nothing learnt": 1}  # the prompt alone is as long
    with pytest.raises(InvalidInputError, match=r"rows\.jsonl:14 is no JSON object"):
        run(folder_of(model, data, tmp_path / "strict", "defaults.broken=refuse"))


@pytest.mark.parametrize("rows", [[], [{"text": 1}]])
def test_nothing_to_learn_from_is_an_error(model: Path, tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"there are no examples in .*rows\.jsonl"):
        run(folder_of(model, written(tmp_path / "rows.jsonl", rows), tmp_path / "out"))


def stages_of(tmp_path: Path, model: Path, out: str) -> SftFolder:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'model.path = "{model}"\ndefaults.path = "rows.jsonl"\n'
        "[[stages]]\nmax_length = 40\n[[stages]]\nepochs = 2\nnum_heldout = 3\n"
    )
    written(tmp_path / "rows.jsonl", ROWS)
    return open_folder(tmp_path / out, read_plan([plan], {}, overrides=KEYS))


def without_times(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in lines(path)]


@pytest.mark.parametrize("num_asked", [1, 4, 6, 8])
def test_what_was_stopped_goes_on_to_the_same_bits(model: Path, tmp_path: Path, num_asked: int) -> None:
    straight, folder = stages_of(tmp_path, model, "straight"), stages_of(tmp_path, model, "stopped")
    run(straight)
    asked = iter(range(100))
    with pytest.raises(InterruptedTraining):
        run(folder, lambda: next(asked) >= num_asked)
    run(folder)
    assert (folder.model / "model.safetensors").read_bytes() == (straight.model / "model.safetensors").read_bytes()
    assert without_times(folder.metrics) == without_times(straight.metrics)


def test_what_was_killed_goes_on_from_its_last_checkpoint(model: Path, tmp_path: Path, monkeypatch) -> None:
    straight, folder = stages_of(tmp_path, model, "straight"), stages_of(tmp_path, model, "killed")
    run(straight)
    original = Display.__call__

    def kill(self: Display, step: Any) -> None:
        original(self, step)
        if (step.index, step.step) == (1, 4):
            raise KeyboardInterrupt

    monkeypatch.setattr(Display, "__call__", kill)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    with folder.metrics.open("a") as file:
        file.write('{"stage": 1, "st')  # killed in the middle of a line
    monkeypatch.setattr(Display, "__call__", original)
    run(folder)
    assert (folder.model / "model.safetensors").read_bytes() == (straight.model / "model.safetensors").read_bytes()
    assert without_times(folder.metrics) == without_times(straight.metrics)


def test_an_adapter_is_written_beside_the_model_that_it_makes(model: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = folder_of(model, written(tmp_path / "rows.jsonl", ROWS), tmp_path / "out", "trainer.adapter.rank=2")
    run(folder)
    base = AutoModelForCausalLM.from_pretrained(model)
    merged = PeftModel.from_pretrained(base, folder.adapter).merge_and_unload().state_dict()
    made, before = load_file(folder.model / "model.safetensors"), load_file(model / "model.safetensors")
    changed = {name for name in made if not made[name].equal(before[name])}
    assert changed
    assert all("_proj" in name for name in changed)
    assert all(made[name].allclose(merged[name], atol=1e-6) for name in made)


def test_a_full_disk_is_said_and_what_was_there_stays(model: Path, tmp_path: Path) -> None:
    folder = folder_of(model, written(tmp_path / "rows.jsonl", ROWS), tmp_path / "out", epochs=3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(StateError, match=r"cannot keep the stage's progress.*make room"):
            run(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert run(folder)["stages"][0]["num_steps"] == 9


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on(model: Path, tmp_path: Path) -> None:
    data, out = written(tmp_path / "rows.jsonl", ROWS), tmp_path / "out"
    command = [sys.executable, "-m", "perilune", "sft", str(data), "--model", str(model), "--out", str(out)]
    command += [part for key in (*KEYS, "defaults.num_steps=100000") for part in ("--set", key)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    num_done = len(lines(out / "metrics.jsonl"))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while len((out / "metrics.jsonl").read_text().splitlines()) <= num_done and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    steps = [row["step"] for row in lines(out / "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))
