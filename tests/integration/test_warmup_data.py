"""`perilune warmup-data` with a real reward service and an endpoint that fails and talks nonsense."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from perilune.cli.commands import app
from perilune.data.examples import read_examples
from perilune.local import own_reward
from perilune.recipe import SftStage
from tests.model_endpoint import served

ROWS = [
    {"question": "What is 2 + 3?", "answer": 5},
    {"question": "What is 4 + 4?", "answer": "8"},
    {"question": "What is 9 - 7?", "answer": "2"},
]


class Writer:
    """A model that reasons in the style it is asked for; each prompt's first call fails, 9 - 7 is answered wrong."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        prompt = body["messages"][-1]["content"]
        with self._lock:
            self.asked[prompt] += 1
            if self.asked[prompt] % 2:
                return 503, "busy"
        if prompt.startswith("Below are"):
            return 200, '{"behaviours": ["planning"]}' if "4 + 4" in prompt else "It plans, I think."
        said = "My plan: add. " if "lay out a plan" in prompt else "Let me check it. " if "check" in prompt else ""
        answer = {"2": 5, "4": 8, "9": 3}[prompt.removeprefix("What is ")[0]]
        return 200, f"{said}So it is \\boxed{{{answer}}}"


def run(source: Path, out: Path, address: str, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["warmup-data", str(source), "--out", str(out), "--rewards", address, *options])
    return done.exit_code, done.output


@pytest.mark.slow
async def test_right_paths_are_kept_labelled_and_read_by_sft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perilune.completions.FIRST_PAUSE_S", 0.0)
    questions, out, writer = tmp_path / "q.jsonl", tmp_path / "out", Writer()
    questions.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"question": "\\n"}\n')
    with served(writer) as url:
        options = [
            "--set", f"writer={{url='{url}', model='small', temperature=0.5}}", "--set", "graders=[{name='math'}]",
            "--set", "num_samples=1", "--set", "parquet=true",
            "--set", f"labeller={{url='{url}', model='judge'}}",
        ]  # fmt: skip
        async with own_reward() as address:
            status, said = await asyncio.to_thread(run, questions, out, address, *options)
            assert status == 1, said  # a row is broken
            report = json.loads((out / "report.json").read_text())
            assert report["funnel"] == {
                "paths asked for": 12, "written": 12, "graded": 12, "right": 6, "kept": report["num_kept"],
            }  # fmt: skip
            assert report["verdicts"] == {"right": 6, "wrong": 4, "repeated": 2}
            assert report["labelled_by"] == {"judge": 3, "rules": 3}
            num_asked = sum(writer.asked.values())
            await asyncio.to_thread(run, questions, out, address, *options)
            assert sum(writer.asked.values()) == num_asked  # nothing is asked twice
    rows = [json.loads(line) for line in (out / "warmup.jsonl").read_text().splitlines()]
    assert {row["messages"][0]["content"] for row in rows} == {"What is 2 + 3?", "What is 4 + 4?"}
    stage = SftStage(type="sft", path=[str(out / "warmup.jsonl")], num_steps=1)
    assert len(read_examples(stage)) == len(rows)
    page = (out / "report.html").read_text()
    assert "My plan: add." in page
    assert "http" not in page.replace(url, "")


@pytest.mark.slow
async def test_an_endpoint_that_is_away_is_a_failure_and_not_a_wrong_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perilune.completions.FIRST_PAUSE_S", 0.0)
    questions, out = tmp_path / "q.jsonl", tmp_path / "out"
    questions.write_text(json.dumps(ROWS[0]) + "\n")
    options = ["--set", "writer={url='http://127.0.0.1:9/v1', model='small'}", "--set", "graders=[{name='math'}]"]
    async with own_reward() as address:
        status, said = await asyncio.to_thread(run, questions, out, address, *options)
    assert status == 1, said
    report = json.loads((out / "report.json").read_text())
    assert report["verdicts"] == {}
    assert len(report["failures"]) == 4  # one for each style


def test_a_plan_that_cannot_work_says_what_to_do(tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text(json.dumps(ROWS[0]) + "\n")
    for options, said in (([], "writer.url"), (["--set", "writer={url='http://x/v1', model='m'}"], "graders"),
                          (["--set", "styles={a='no question'}"], "styles.a")):  # fmt: skip
        done = CliRunner().invoke(app, ["warmup-data", str(questions), "--out", str(tmp_path / "o"), *options])
        assert done.exit_code
        assert said in str(done.exception)
