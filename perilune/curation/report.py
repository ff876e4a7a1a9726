"""The report of a curation as one HTML file that needs no network: the same numbers as report.json."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from perilune.data.jsonlines import lines_of
from perilune.recipe import toml

NUM_BINS = 30
MAX_VALUES = 30  # of a label, the most frequent


@dataclass(frozen=True)
class Bin:
    """One bar of a histogram."""

    low: int
    high: int
    number: int
    share: float  # of the highest bar, in percent


@dataclass(frozen=True)
class Histogram:
    """How a number is spread over the prompts."""

    title: str
    unit: str
    bins: Sequence[Bin]

    @property
    def most(self) -> int:
        """The highest bar."""
        return max(each.number for each in self.bins)


def write_report(report: Mapping[str, Any], folder: Path) -> Path:
    """Writes report.html from a curation's report and its prompts; gives its path."""
    from jinja2 import Environment
    from markupsafe import Markup

    prompts = [json.loads(line) for _, line in lines_of(folder / "prompts.jsonl")]
    text = resources.files("perilune.curation").joinpath("report.html").read_text(encoding="utf-8")

    def track(kept: int, left: int) -> Markup:
        whole = max(report["input"]["num_rows"] + report["input"]["num_rejected"], 1)
        parts = ("kept", kept), ("left", left)
        bars = "".join(
            f'<div class="{name}" style="width: {100 * number / whole:.2f}%"></div>' for name, number in parts
        )
        return Markup(f'<div class="track">{bars}</div>')

    page = (
        Environment(autoescape=True)
        .from_string(text)
        .render(
            report=report,
            title=", ".join(Path(path).name for path in report["input"]["files"]),
            track=track,
            histograms=histograms(prompts),
            labels=label_table(prompts, report["plan"]),
            plan=toml.dumps(report["plan"]),
        )
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


def bins(values: Sequence[int]) -> list[Bin]:
    """Values in at most NUM_BINS bins of one width.

    >>> [(each.low, each.high, each.number) for each in bins([1, 1, 2, 4])]
    [(1, 1, 2), (2, 2, 1), (3, 3, 0), (4, 4, 1)]
    """
    low, high = min(values), max(values)
    width = max(1, math.ceil((high - low + 1) / NUM_BINS))
    counted = Counter((value - low) // width for value in values)
    most = max(counted.values())
    num_bins = (high - low) // width + 1
    return [
        Bin(low + place * width, low + (place + 1) * width - 1, counted[place], 100 * counted[place] / most)
        for place in range(num_bins)
    ]


def label_table(prompts: Iterable[Mapping[str, Any]], plan: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    """How many prompts have each value of each label, the most frequent first."""
    counted: dict[str, Counter[str]] = {}
    for each in prompts:
        for key in each.keys() - {"question", "answer", "place"}:
            counted.setdefault(key, Counter())[each[key]] += 1
    return {key: values.most_common(MAX_VALUES) for key, values in sorted(counted.items())}
