"""The report of a curation as one HTML file that needs no network: the same numbers as report.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perilune.data.jsonlines import lines_of
from perilune.pages import Histogram, bins, render
from perilune.recipe import toml

MAX_VALUES = 30  # of a label, the most frequent


def write_report(report: Mapping[str, Any], folder: Path) -> Path:
    """Writes report.html from a curation's report and its prompts; gives its path."""
    prompts = [json.loads(line) for _, line in lines_of(folder / "prompts.jsonl")]
    page = render(
        "perilune.curation",
        "report.html",
        report=report,
        title=", ".join(Path(path).name for path in report["input"]["files"]),
        num_read=report["input"]["num_rows"] + report["input"]["num_rejected"],
        histograms=histograms(prompts),
        labels=label_table(prompts, report["plan"]),
        plan=toml.dumps(report["plan"]),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def histograms(prompts: Sequence[Mapping[str, Any]]) -> list[Histogram]:
    """Lengths of questions and answers."""
    if not prompts:
        return []
    return [
        Histogram("Lengths of questions", "words", bins([len(each["question"].split()) for each in prompts])),
        Histogram("Lengths of answers", "characters", bins([len(each["answer"]) for each in prompts])),
    ]


def label_table(prompts: Iterable[Mapping[str, Any]], plan: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    """How many prompts have each value of each label, the most frequent first."""
    counted: dict[str, Counter[str]] = {}
    for each in prompts:
        for key in each.keys() - {"question", "answer", "place"}:
            counted.setdefault(key, Counter())[each[key]] += 1
    return {key: values.most_common(MAX_VALUES) for key, values in sorted(counted.items())}
