"""`perilune evaluate` as a user calls it, with a real master, reward service and sandbox; a table is the model."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from typer.testing import CliRunner

from perilune.cli.commands import app
from perilune.concurrency import entered
from perilune.evaluation.benchmarks import find_task
from perilune.local import own_reward, own_sandbox, recording_master
from tests.model_endpoint import served
from tests.unit.evaluation.miniatures import MINIATURES


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def services(home: Path) -> Iterator[list[str]]:
    """What every command of these tests is given: its home, and services that run already."""
    with (
        entered(recording_master(home)) as master,
        entered(own_sandbox(2)) as sandbox,
        entered(own_reward(sandbox)) as rewards,
    ):
        yield ["--home", str(home), "--master", master, "--rewards", rewards, "--json"]


class Table:
    """A model that has an answer to each prompt; `failing` prompts are refused."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers, self.asked = answers, Counter[str]()
        self.failing: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else content[-1]["text"]
        with self._lock:
            self.asked[prompt] += 1
        if prompt in self.failing:
            return 400, {"error": {"message": "no such prompt"}}
        message = {"role": "assistant", "content": self.answers[prompt]}
        return 200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 7}}


def evaluate(url: str, services: list[str], *arguments: str) -> tuple[int, list[Any], str]:
    done = CliRunner().invoke(app, ["evaluate", url, *arguments, *services])
    return done.exit_code, json.loads(done.stdout) if done.stdout else [], done.stderr


def recorded(services: list[str], *arguments: str) -> Any:
    home, master = services[:2], services[2:4]
    done = CliRunner().invoke(app, ["evaluations", *arguments, *home, *master, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def written(folder: Path, name: str) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in MINIATURES[name][0]))
    return path


@pytest.mark.slow
def test_every_benchmark_in_its_own_format_right_and_wrong(tmp_path: Path, services: list[str]) -> None:
    files = {name: written(tmp_path, name) for name in MINIATURES}
    answers = {}
    for name, path in files.items():
        for problem, answer in zip(find_task(name, str(path), (), None).problems, MINIATURES[name][1:], strict=True):
            answers[problem.question] = answer
    model = Table(answers)
    tasks = [f"{name}={path}" for name, path in files.items()]
    with served(model) as url:
        status, found, said = evaluate(url, services, *tasks)
        assert status == 0, said
        assert {each["task"]: each["scores"][0]["value"] for each in found} == dict.fromkeys(MINIATURES, 0.5)
        aime = next(each for each in found if each["task"] == "aime2024")
        assert [score["name"] for score in aime["scores"]][:6] == [
            "avg@8",
            "pass@2",
            "pass@4",
            "pass@8",
            "maj@8",
            "mean_tokens",
        ]
        assert (aime["num_problems"], aime["num_samples"]) == ("2", "16")
        asked = model.asked.total()
        again = evaluate(url, services, *tasks)
        assert again[1] == found  # to the digit, from what is recorded
        assert "recorded already" in again[2]
        assert model.asked.total() == asked
    listed = recorded(services)
    assert {each["id"] for each in listed} == {each["id"] for each in found}
    samples = recorded(services, aime["id"])
    assert [sample["value"] for sample in samples["samples"]] == [1] * 8 + [0] * 8
    assert samples["samples"][0]["response"] == "So it is \\boxed{204}."


@pytest.mark.slow
def test_a_sample_that_failed_is_in_no_score_and_is_asked_for_again(tmp_path: Path, services: list[str]) -> None:
    path = written(tmp_path, "math500")
    problems = find_task("math500", str(path), (), None).problems
    model = Table({problem.question: "\\boxed{1}" for problem in problems})
    model.failing = {problems[0].question}
    with served(model) as url:
        status, found, _ = evaluate(url, services, f"math500={path}")
        assert (status, found[0]["scores"][0]["value"], found[0]["num_failed"]) == (0, 1.0, "1")
        model.failing, before = set(), model.asked[problems[1].question]
        status, found, _ = evaluate(url, services, f"math500={path}")
        assert (status, found[0]["scores"][0]["value"], "num_failed" in found[0]) == (0, 0.5, False)
        assert model.asked[problems[1].question] == before  # only what was lacking
        assert len(recorded(services, "--task", "math500")) == 2  # this one, and that of the test before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "options", "reason"),
    [
        ((400, {"error": {"message": "the model has no chat template"}}), [], "--plain asks without one"),
        ((401, {"error": {"message": "who are you"}}), [], "rejects 'small': 401"),
        ((400, {"error": {"message": "no"}}), [], "no sample could be scored; the first: .*no"),
        ((200, "\\boxed{1}"), ["--samples", "4"], "4 responses at temperature 0 are one response 4 times"),
    ],
)
def test_what_cannot_be_measured_is_said(
    reply: tuple[int, Any], options: list[str], reason: str, tmp_path: Path, services: list[str]
) -> None:
    with served(lambda body: reply) as url:
        status, found, said = evaluate(url, services, f"math500={written(tmp_path, 'math500')}", *options)
    assert (status, found) == (1, [])
    assert re.search(reason, said), said


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_answered(tmp_path: Path, services: list[str]) -> None:
    path = written(tmp_path, "math500")
    first, second = (problem.question for problem in find_task("math500", str(path), (), None).problems)
    model, second_asked, may_answer = Table({first: "\\boxed{0.5}", second: "\\boxed{1}"}), Event(), Event()

    def slow(body: dict[str, Any]) -> tuple[int, Any]:
        if body["messages"][-1]["content"] == second:
            second_asked.set()
            may_answer.wait(60)
        return model(body)

    with served(slow) as url:
        options = [f"math500={path}", "--concurrency", "1", "--max-tokens", "99", *services]
        # A process whose parent ignores Ctrl-C would ignore it too.
        main = "import signal; signal.signal(2, signal.default_int_handler); from perilune.cli import main; main()"
        command = [sys.executable, "-c", main, "evaluate", url, *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert second_asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, "the same command goes on" in said) == (130, True), said
        may_answer.set()
        status, found, _ = evaluate(url, services, f"math500={path}", "--concurrency", "1", "--max-tokens", "99")
        assert (status, found[0]["scores"][0]["value"], model.asked[first]) == (0, 1.0, 1)
