"""`perilune testgen` with a real sandbox: verdicts, programs by a model, hostile generators, bad input, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perilune.completions import ModelTable
from perilune.concurrency import entered
from perilune.errors import InvalidInputError
from perilune.grading.codetests import judge_request
from perilune.local import own_sandbox
from perilune.testgen.command import Means, run
from perilune.testgen.settings import CaseSettings
from tests.model_endpoint import served

SUM = {
    "statement": "Print the sum of two integers.",
    "solutions": [f"print(sum(map(int, input().split()))) # {i}" for i in range(5)],
}
GENERATOR = "from cyaron import *\nprint(randint(-99, 99), randint(-99, 99))"
SETTINGS = CaseSettings(num_cases=6, min_valid=4, generator_s=0.3)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with entered(own_sandbox(2)) as address:
        yield address


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def report_in(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def test_one_is_kept_and_hostile_generators_are_verdicts(tmp_path: Path, sandbox: str) -> None:
    hostile = {
        "endless": "while True: pass",
        "gigabytes": "while True: print('x' * 9999999)",
        "files": "for i in range(10**6):\n    with open(f'{i}.in', 'w') as f: f.write('x' * 10**6)",
        "forks": "import os\nwhile True: os.fork()",
        "killer": "import os, signal\nos.kill(-1, signal.SIGKILL)",
        "network": "import urllib.request\nprint(urllib.request.urlopen('http://127.0.0.1:80').read())",
        "crash": "print(1 / 0)",
        "silent": "pass",
    }
    wrong = ["a, b = map(int, input().split())\nprint(a - b)"]
    problems = write(
        tmp_path / "problems.jsonl",
        {**SUM, "id": "sum", "generator": GENERATOR, "wrong_solutions": wrong},
        *({**SUM, "id": name, "generator": source} for name, source in hostile.items()),
    )
    out = tmp_path / "out"
    assert run(problems, out, SETTINGS, Means(sandbox_address=sandbox, at_once=4)) == 0
    report = report_in(out)
    fates = {found["id"]: found["fate"] for found in report["problems"]}
    assert fates == {"sum": "kept", **dict.fromkeys(hostile, "no generator that works")}
    assert all(found["reason"] for found in report["problems"] if found["fate"] != "kept")
    assert report["rates"]["tnr"] == {"num": 1, "total": 1}
    row = json.loads(json.loads((out / "testcases.jsonl").read_text())["reference"])
    assert len(judge_request("native", row, "print()").cases) == 6
    page = (out / "report.html").read_text()
    assert "the generator fails" in page
    assert "http" not in page.replace("http://127.0.0.1", "")
    seconds = [found["seconds"] for found in report["problems"]]
    assert run(problems, out, SETTINGS, Means(sandbox_address="127.0.0.1:9")) == 0  # nothing is left to do
    assert [found["seconds"] for found in report_in(out)["problems"]] == seconds


PAIR = {
    "id": "pair",
    "statement": "Print two integers above 0 whose product is n, 1 to 1000. If there are several, print any of them.",
    "solutions": [f"n = int(input())\nprint({pair}) # {i}" for i in range(3) for pair in ("1, n", "n, 1")],
    "wrong_solutions": ["print(1, 1)"],
    "examples": ["6\n"],
    "malformed": ["x\n", "", "0\n", "1001\n", "5 5\n"],
}
WRITTEN = {
    "generates test inputs": "import random, sys\n"
    "print(1 + int(sys.argv[3]) if sys.argv[2] == 'small' else random.randint(1, 1000))",
    "checks test inputs": "import re, sys\ntext = sys.stdin.read().strip()\n"
    "sys.exit(0 if re.fullmatch('[1-9][0-9]*', text) and int(text) <= 1000 else 1)",
    "judges outputs": "import sys\nn = int(open('input').read())\nwords = open('output').read().split()\n"
    "sys.exit(0 if len(words) == 2 and all(w.isdigit() for w in words) and int(words[0]) * int(words[1]) == n else 1)",
}
FIRST = {
    "generates test inputs": "I am sorry, I cannot do that.",
    "checks test inputs": "```python\nimport sys\nsys.exit(1)\n```",  # it rejects the example
    "judges outputs": "```python\nimport sys\nsys.exit(0)\n```",  # it accepts everything
}


def test_a_model_writes_what_a_problem_lacks_and_learns_from_what_was_wrong(
    tmp_path: Path, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perilune.completions.FIRST_PAUSE_S", 0.0)
    asked: Counter[str] = Counter()

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        prompt = body["messages"][0]["content"]
        asked[prompt] += 1
        if asked[prompt] == 1:
            return 200, b"\xff\xfe no JSON"
        kind = next(kind for kind in WRITTEN if kind in prompt)
        return 200, f"<think>hm</think>\n```python\n{WRITTEN[kind]}\n```" if "failed:" in prompt else FIRST[kind]

    problems, out = write(tmp_path / "problems.jsonl", PAIR), tmp_path / "out"
    with served(reply) as url:
        means = Means(ModelTable(url=url, model="coder"), sandbox_address=sandbox)
        assert run(problems, out, SETTINGS, means) == 0
    (found,) = report_in(out)["problems"]
    assert (found["fate"], found["generators"], found["validator"], found["checker"]) == (
        "kept", ["coder"], "a model", "a model",
    )  # fmt: skip
    assert found["planted_malformed"] == {"num": 5, "total": 5}
    assert (found["tpr"], found["tnr"]) == ({"num": 6, "total": 6}, {"num": 1, "total": 1})
    assert len(asked) == 6  # each program twice


def test_an_endpoint_that_is_away_or_talks_nonsense_drops_no_other_problem(
    tmp_path: Path, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perilune.completions.FIRST_PAUSE_S", 0.0)
    lacking = {**SUM, "id": "lacking"}
    problems = write(
        tmp_path / "problems.jsonl", lacking, {**SUM, "id": "sum", "generator": GENERATOR, "validator": "pass"}
    )
    away = Means(ModelTable(url="http://127.0.0.1:9/v1", model="m"), sandbox_address=sandbox)
    assert run(problems, tmp_path / "out", SETTINGS, away) == 1
    report = report_in(tmp_path / "out")
    assert (list(report["unfinished"]), report["funnel"]["kept"]) == (["lacking"], 1)
    with served(lambda body: (200, "\ud800 lovely weather")) as url:
        nonsense = Means(ModelTable(url=url, model="m"), sandbox_address=sandbox)
        assert run(problems, tmp_path / "out", SETTINGS, nonsense) == 0
    fates = {found["id"]: found["fate"] for found in report_in(tmp_path / "out")["problems"]}
    assert fates == {"lacking": "no generator that works", "sum": "kept"}
    with served(lambda body: (401, {"error": "no key"})) as url, pytest.raises(InvalidInputError, match="401"):
        run(problems, tmp_path / "other", SETTINGS, Means(ModelTable(url=url, model="m"), sandbox_address=sandbox))


def test_rows_that_are_no_problem_are_named_and_the_rest_goes_on(
    tmp_path: Path, sandbox: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "problems.jsonl"
    good = json.dumps({**SUM, "id": "sum", "generator": GENERATOR, "checker": None})
    rows = [b"{broken", b'{"statement": "\xff"}', b'{"question": "other schema"}', b"[]", good.encode(), good.encode()]
    path.write_bytes(b"\n".join(rows))
    assert run(path, tmp_path / "out", SETTINGS, Means(sandbox_address=sandbox)) == 1
    report = report_in(tmp_path / "out")
    assert [row["place"].rpartition(" ")[2] for row in report["broken"]] == ["1", "2", "3", "4", "6"]
    assert report["funnel"]["kept"] == 1
    assert "was used above" in capsys.readouterr().err
    path.write_bytes(b"")
    with pytest.raises(InvalidInputError, match="holds no problems"):
        run(path, tmp_path / "out", SETTINGS, Means(sandbox_address=sandbox))


@pytest.mark.slow
def test_the_shipped_examples_are_told_apart(tmp_path: Path, sandbox: str) -> None:
    """The benchmark in miniature: its programs with standard input, with a checker, and as a function."""
    problems = Path(__file__).parents[2] / "examples" / "coding_problems.jsonl"
    settings = CaseSettings(num_cases=10, min_valid=8, generator_s=0.3)
    assert run(problems, tmp_path / "out", settings, Means(sandbox_address=sandbox, at_once=2)) == 0
    report = report_in(tmp_path / "out")
    assert report["funnel"]["kept"] == 3
    for name in ("tpr", "heldout_tpr", "planted_malformed"):
        assert report["rates"][name]["num"] == report["rates"][name]["total"] > 0
    assert report["rates"]["tnr"]["num"] >= 8  # of 9, with a fifth of the cases
    assert {found["checker"] for found in report["problems"]} == {"", "given"}


@pytest.mark.slow
def test_ctrl_c_loses_nothing_that_is_done(tmp_path: Path, sandbox: str) -> None:
    slow = [f"import time\ntime.sleep(0.4)\nprint(sum(map(int, input().split()))) # {i}" for i in range(5)]
    problems = write(
        tmp_path / "problems.jsonl",
        {**SUM, "id": "quick", "generator": GENERATOR},
        {**SUM, "id": "slow", "generator": GENERATOR, "solutions": slow},
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "perilune", "testgen", str(problems), "--out", str(out), "--concurrency", "1"]
    options = ["--cases", "6", "--min-valid", "4", "--address", sandbox]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    deadline = time.monotonic() + 60
    while not list(out.glob("problems/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "1 problems are left" in said
    assert report_in(out)["funnel"] == {
        "problems": 2, "need no special judge": 1, "enough valid cases": 1, "kept": 1,
    }  # fmt: skip
    assert run(problems, out, CaseSettings(num_cases=6, min_valid=4), Means(sandbox_address=sandbox)) == 0
    assert report_in(out)["funnel"]["kept"] == 2
