"""Harnesses of others: their command lines, their results, and one that dies in the middle."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perilune.errors import InvalidInputError, MissingDependencyError, StateError
from perilune.evaluation.command import Request, task_of
from perilune.evaluation.harness import HARNESSES, PYTHON, Asked, run, version_of
from perilune.evaluation.own import Sampling

LM_EVAL = {
    "results": {
        "tiny": {"alias": "tiny", "sample_len": 2, "acc,none": 0.5, "acc_stderr,none": 0.25, "acc_norm,none": 1.0,
                 "acc_norm_stderr,none": "N/A"},
    },
    "n-samples": {"tiny": {"original": 4, "effective": 2}},
}  # fmt: skip
LM_EVAL_SAMPLES = [
    {
        "doc_id": number,
        "target": str(number),
        "arguments": {"gen_args_0": {"arg_0": f"question {number}", "arg_1": "one"}},
        "resps": [[["-5.5", "False"]]],
        "filtered_resps": [["-5.5", "False"]],
        "metrics": ["acc", "acc_norm"],
        "acc": float(number),
        "acc_norm": 1.0,
    }
    for number in range(2)
]
INSPECT: dict[str, Any] = {
    "status": "success",
    "results": {
        "total_samples": 2,
        "scores": [
            {"name": "includes", "metrics": {"accuracy": {"value": 0.75}, "stderr": {"value": 0.125}}},
        ],
    },
    "samples": [
        {"id": name, "epoch": epoch, "input": [{"role": "user", "content": f"{name}?"}], "target": [name],
         "output": {"completion": f"It is {name}."}, "model_usage": {"openai-api/local/small": {"output_tokens": 5}},
         "scores": {"includes": {"value": verdict, "answer": name, "explanation": None}}}
        for name, epoch, verdict in (("a", 1, "C"), ("b", 1, "I"), ("a", 2, "C"), ("b", 2, "C"))
    ],
}  # fmt: skip


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked("tiny", "http://127.0.0.1:8000/v1", "small", tmp_path / "work", Sampling(), None, tmp_path / "tok")


def write_lm_eval(folder: Path) -> None:
    place = folder / "results" / "small"
    place.mkdir(parents=True)
    (place / "results_2026-01-01T00-00-00.1.json").write_text(json.dumps(LM_EVAL))
    lines = "".join(json.dumps(row) + "\n" for row in LM_EVAL_SAMPLES)
    (place / "samples_tiny_2026-01-01T00-00-00.1.jsonl").write_text(lines)
    (place / "samples_tiny_2025-01-01T00-00-00.1.jsonl").write_text("of an earlier try\n")


def test_results_of_lm_eval_are_read(asked: Asked) -> None:
    write_lm_eval(asked.folder)
    said = HARNESSES["lm-eval"].read(asked)
    acc, norm = said.figures
    assert (acc.name, acc.value, acc.low) == ("acc,none", 0.5, pytest.approx(0.5 - 1.959963984540054 * 0.25))
    assert (norm.name, norm.value, norm.low) == ("acc_norm,none", 1.0, None)
    assert [(each.problem_id, each.prompt, each.value) for each in said.samples] == [
        ("tiny 0", "question 0", 0.0),
        ("tiny 1", "question 1", 1.0),
    ]
    assert said.num_problems == 2


def test_results_of_inspect_are_read(asked: Asked) -> None:
    (asked.folder / "logs").mkdir(parents=True)
    (asked.folder / "logs" / "one.json").write_text(json.dumps(INSPECT))
    said = HARNESSES["inspect"].read(asked)
    assert [(each.name, each.value, each.high) for each in said.figures] == [
        ("includes accuracy", 0.75, pytest.approx(0.75 + 1.959963984540054 * 0.125))
    ]
    places = [(each.problem, each.number, each.problem_id, each.value, each.num_tokens) for each in said.samples]
    assert places == [(0, 0, "a", 1, 5), (1, 0, "b", 0, 5), (0, 1, "a", 1, 5), (1, 1, "b", 1, 5)]
    assert (said.samples[0].prompt, said.samples[0].reference) == ("a?", "a")


def test_command_lines_say_how_it_is_sampled(asked: Asked) -> None:
    lm_eval = " ".join(HARNESSES["lm-eval"].command(replace(asked, sampling=Sampling(max_tokens=9), limit=4)))
    assert "--model local-completions" in lm_eval
    assert "base_url=http://127.0.0.1:8000/v1/completions" in lm_eval
    assert "--apply_chat_template --limit 4 --gen_kwargs max_gen_toks=9" in lm_eval
    elsewhere = " ".join(HARNESSES["lm-eval"].command(replace(asked, tokenizer=None)))
    assert "--model local-chat-completions" in elsewhere
    inspect = " ".join(HARNESSES["inspect"].command(replace(asked, sampling=Sampling(2, 0.5, 0.9, 9, "Be brief."))))
    assert "eval tiny --model openai-api/local/small --epochs 2 --temperature 0.5 --max-tokens 9 --top-p 0.9" in inspect
    for name, sampling in (("lm-eval", Sampling(num_samples=2)), ("inspect", Sampling(plain=True))):
        with pytest.raises(InvalidInputError, match="leave --"):
            HARNESSES[name].command(replace(asked, sampling=sampling))


def test_an_evaluation_of_inspect_that_was_cut_short_is_gone_on_with(asked: Asked) -> None:
    (asked.folder / "logs").mkdir(parents=True)
    (asked.folder / "logs" / "one.json").write_text(json.dumps({"status": "started"}))
    assert HARNESSES["inspect"].command(asked)[:3] == ["-m", "inspect_ai", "eval-retry"]


async def test_a_harness_that_dies_goes_on_from_what_it_kept(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try ends like a crash; the second finds what it left, and writes its results."""
    write_lm_eval(tmp_path / "prepared")
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh
if [ "$1" = "-c" ]; then echo 9.9; exit 0; fi
if [ ! -e {asked.folder}/cache ]; then touch {asked.folder}/cache; echo "no memory"; exit 137; fi
cp -r {tmp_path}/prepared/results {asked.folder}/results
""")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(PYTHON, str(python))
    said: list[str] = []
    assert await version_of(HARNESSES["lm-eval"]) == "9.9"
    with pytest.raises(StateError, match=r"ended with status 137 in tiny; .* the same command goes on.*\nno memory"):
        await run(HARNESSES["lm-eval"], asked, said.append)
    assert (await run(HARNESSES["lm-eval"], asked, said.append)).figures[0].value == 0.5


async def test_results_that_cannot_be_read_are_named(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON, "/bin/true")
    with pytest.raises(InvalidInputError, match=r"what lm-eval wrote in .* cannot be read"):
        await run(HARNESSES["lm-eval"], asked, lambda line: None)


def test_a_harness_that_is_not_there_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"lm-eval is not installed: pip install 'perilune\[evaluate\]'"):
        task_of("lm-eval:arc_easy", Request("small", [], Path("home")))


async def test_a_python_without_the_harness_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, "/bin/false")
    with pytest.raises(MissingDependencyError, match="/bin/false has no inspect_ai"):
        await version_of(HARNESSES["inspect"])
    monkeypatch.setenv(PYTHON, "/no/such/python")
    with pytest.raises(MissingDependencyError, match="cannot be run"):
        await version_of(HARNESSES["inspect"])
