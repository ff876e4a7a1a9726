"""The benchmark from long to short in miniature: every way runs, nothing runs twice, and what is said of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import long2short
from benchmarks.ablations.effects import Effect
from benchmarks.long2short import BEGIN, END, METHODS, Results, comparison, relation, table

pytestmark = [pytest.mark.slow, pytest.mark.ci]


def test_every_way_runs_once_and_the_page_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "out" / "long2short.md"
    page.parent.mkdir()
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    arguments = ["--small", "--seeds=1", *(f"--{name}={tmp_path / name}" for name in ("runs", "data", "out"))]
    long2short.main(arguments)
    said, text = capsys.readouterr().out, page.read_text()
    assert "failed" not in said
    for method in METHODS:
        assert f"seed 0, {method}: " in said
        assert f"| {method} | 0 | " in text
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "Of fewer than 3 seeds nothing is said." in text
    assert (tmp_path / "out" / "pictures" / "long2short.svg").stat().st_size > 5_000
    (folder,) = (tmp_path / "data").iterdir()
    assert {each.name for each in folder.iterdir()} >= {"long", "short", "shorter"}
    long2short.main(arguments)
    assert "seed 0" not in capsys.readouterr().out
    assert page.read_text() == text


def test_which_of_two_ways_is_more_efficient() -> None:
    def effect(median: float, width: float = 0.0) -> Effect:
        return Effect(median, median - width, median + width, p_value=0.25, num_seeds=3)

    assert relation(effect(0.1), effect(-5.0)) == "more efficient"
    assert relation(effect(0.0), effect(-5.0)) == "more efficient"
    assert relation(effect(0.01), effect(0.5)) == "alike"  # less than what counts
    assert relation(effect(0.1, 0.2), effect(-5.0, 9.0)) == "alike"  # not clear of zero
    assert relation(effect(-0.1), effect(0.0)) == "less efficient"
    assert relation(effect(0.1), effect(5.0)) == "a trade: more accurate and longer"
    assert relation(effect(-0.1), effect(-5.0)) == "a trade: shorter and less accurate"
    assert relation(Effect(0.1, 0.1, 0.1, 1.0, 2), effect(0.0)) == "too few seeds"
    assert relation(None, None) == "too few seeds"


def results_of(figures: dict[str, tuple[float, float]]) -> Results:
    """Three seeds that differ little, by way."""

    def run(accuracy: float, tokens: float, seed: int) -> dict[str, Any]:
        return {"accuracy": accuracy + seed / 1000, "mean_tokens": tokens + seed / 10, "cpu_seconds": 1.0}

    return {way: {seed: run(*figure, seed) for seed in range(3)} for way, figure in figures.items()}


def test_the_finding_is_in_words() -> None:
    figures = dict.fromkeys(METHODS, (0.8, 30.0)) | {"long2short RL": (0.9, 20.0)}
    assert comparison(results_of(figures))[-1].startswith("The paper's order holds here.")
    some = comparison(results_of(figures | {"merging": (0.5, 10.0)}))[-1]
    assert some.startswith("No way is more token-efficient than long2short RL here, and not every one is less.")
    assert "a trade: merging" in some
    worse = comparison(results_of(figures | {"DPO": (0.95, 15.0)}))[-1]
    assert worse.startswith("The paper's order does not hold here.")
    assert "less efficient: DPO" in worse
    assert "| DPO | 0, 1, 2 | 0.801 [0.800, 0.802] | 30.1 [30.0, 30.2] | 37.6 [37.5, 37.7] | 1 |" in table(
        results_of(figures)
    )


def test_a_way_that_failed_is_named() -> None:
    results = results_of(dict.fromkeys(METHODS, (0.8, 30.0)))
    results["DPO"][1] = {"failed": "no pairs"}
    results["merging"] = {0: {"failed": "x"}}
    rows = table(results)
    assert any(row.startswith("| DPO | 0, 2, failed at seed 1 | ") for row in rows)
    assert "| merging | failed at seed 0 | | | | |" in rows
    assert "| Toggle | not run yet | | | | |" in table({**results, "Toggle": {}})
