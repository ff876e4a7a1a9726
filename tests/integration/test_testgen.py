"""`perilune testgen` with a real sandbox: a kept problem, a generator without end, and the same command again."""

from __future__ import annotations

import json
from pathlib import Path

from perilune.grading.codetests import judge_request
from perilune.testgen.command import Means, run
from perilune.testgen.settings import CaseSettings

SUM = {
    "statement": "Print the sum of two integers.",
    "solutions": [f"print(sum(map(int, input().split()))) # {i}" for i in range(5)],
}
GENERATOR = "from cyaron import *\nprint(randint(-99, 99), randint(-99, 99))"


def test_one_is_kept_and_an_endless_generator_is_a_verdict(tmp_path: Path) -> None:
    rows = [
        {
            **SUM,
            "id": "sum",
            "generator": GENERATOR,
            "wrong_solutions": ["a, b = map(int, input().split())\nprint(a - b)"],
        },
        {**SUM, "id": "endless", "generator": "while True: print('x' * 9999)"},
    ]
    problems, out = tmp_path / "problems.jsonl", tmp_path / "out"
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = CaseSettings(num_cases=6, min_valid=4)
    assert run(problems, out, settings, Means()) == 0
    report = json.loads((out / "report.json").read_text())
    assert [found["fate"] for found in report["problems"]] == ["kept", "no generator that works"]
    assert report["rates"]["tnr"] == {"num": 1, "total": 1}
    row = json.loads(json.loads((out / "testcases.jsonl").read_text())["reference"])
    assert len(judge_request("native", row, "print()").cases) == 6
    seconds = [found["seconds"] for found in report["problems"]]
    assert run(problems, out, settings, Means()) == 0
    assert [found["seconds"] for found in json.loads((out / "report.json").read_text())["problems"]] == seconds
