"""The report of a set: a funnel as the paper's, what the tests are worth, and every problem with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from perilune.pages import Histogram, bins, render
from perilune.stats import wilson_interval
from perilune.testgen.making import Fate
from perilune.testgen.problem import KINDS, BrokenRow

PAPER = (1000, 614, 463, 323)  # k1.5 §2.3.5, stage by stage
BEFORE_JUDGING = (Fate.TOO_FEW_SOLUTIONS, Fate.SPECIAL_JUDGE, Fate.NO_CHECKER)
RATES = {
    "tpr": "right submissions that made the tests and pass (TPR)",
    "heldout_tpr": "right submissions that had no part in them and pass (held-out TPR)",
    "tnr": "wrong submissions that fail (TNR)",
    "planted_malformed": "planted malformed inputs that are rejected",
}


def report_of(
    results: Sequence[Mapping[str, Any]], broken: Sequence[BrokenRow], unfinished: Mapping[str, str]
) -> dict[str, Any]:
    """The report as JSON: the funnel, the rates over problems that are kept, and every problem without its tests."""
    fates = Counter(result["fate"] for result in results)
    kept = [result for result in results if result["fate"] == Fate.KEPT]
    return {
        "funnel": {
            "problems": len(results) + len(broken) + len(unfinished),
            "need no special judge": len(results) - sum(fates[fate] for fate in BEFORE_JUDGING),
            "enough valid cases": fates[Fate.KEPT] + fates[Fate.SOLUTIONS_FAIL],
            "kept": fates[Fate.KEPT],
        },
        "rates": {name: {key: sum(result[name][key] for result in kept) for key in ("num", "total")} for name in RATES},
        "broken": [asdict(row) for row in broken],
        "unfinished": dict(unfinished),
        "problems": [{key: value for key, value in result.items() if key != "row"} for result in results],
    }


def page_of(report: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no network."""
    problems = report["problems"]
    kept = [problem for problem in problems if problem["fate"] == Fate.KEPT]
    whole = max(1, report["funnel"]["problems"])
    return render(
        "perilune.testgen",
        "report.html",
        report=report,
        manifest=manifest,
        stages=[
            {
                "name": name,
                "num": num,
                "share": 100 * num / whole,
                "paper": paper,
                "paper_share": paper / PAPER[0] * 100,
            }
            for (name, num), paper in zip(report["funnel"].items(), PAPER, strict=True)
        ],
        fates=Counter(problem["fate"] for problem in problems).most_common(),
        rates=[_rate(title, report["rates"][name]) for name, title in RATES.items()],
        kinds=_by_kind(kept),
        histogram=_histogram(problems),
    )


def _rate(title: str, rate: Mapping[str, int]) -> dict[str, Any]:
    low, high = wilson_interval(rate["num"], rate["total"])
    share = 100 * rate["num"] / rate["total"] if rate["total"] else None
    return {"title": title, **rate, "share": share, "low": 100 * low, "high": 100 * high}


def _by_kind(kept: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    found = Counter[str]()
    for problem in kept:
        found.update(problem["valid_by_kind"])
    return [(kind, found[kind]) for kind in ("example", *KINDS)]


def _histogram(problems: Sequence[Mapping[str, Any]]) -> Histogram | None:
    numbers = [problem["num_valid"] for problem in problems if problem["num_inputs"]]
    return Histogram("Valid cases of a problem", "cases", bins(numbers)) if numbers else None
