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
NO_LABELS = {"question", "answer", "place"}


def write_report(report: Mapping[str, Any], folder: Path) -> Path:
    """Writes report.html from a curation's report and its prompts; gives its path."""
    prompts = [json.loads(line) for _, line in lines_of(folder / "prompts.jsonl")]
    page = render(
        "perilune.curation",
        "report.html",
        report=report,
        title=", ".join(Path(path).name for path in report["input"]["files"]),
        num_read=report["input"]["num_rows"] + report["input"]["num_rejected"],
        histograms=histograms(prompts, [report["plan"]["difficulty"]["label"]]),
        labels=label_table(prompts),
        tags=tag_table(prompts),
        balance=[row for stage in report["stages"] for row in stage.get("facts", {}).get("balance", [])],
        failures=[(stage["title"], each) for stage in report["stages"] for each in stage.get("failures", [])],
        plan=toml.dumps(report["plan"]),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def histograms(prompts: Sequence[Mapping[str, Any]], rates: Sequence[str] = ()) -> list[Histogram]:
    """Lengths of questions and answers, and pass rates under the labels of `rates`."""
    if not prompts:
        return []
    found = [
        Histogram("Lengths of questions", "words", bins([len(text_of(each).split()) for each in prompts])),
        Histogram("Lengths of answers", "characters", bins([len(each["answer"]) for each in prompts])),
    ]
    for label in rates:
        measured = [round(100 * float(each[label])) for each in prompts if label in each]
        if measured:
            found.append(Histogram(f"Right answers: {label}", "percent", bins(measured)))
    return found


def text_of(prompt: Mapping[str, Any]) -> str:
    """The text of a question, which may be a message of pictures and text."""
    question = prompt["question"]
    if isinstance(question, str):
        return question
    return " ".join(part["text"] for turn in question for part in turn["content"] if part["type"] == "text")


def label_table(prompts: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[str, int]]]:
    """Returns how many prompts have each value of each label, the most frequent first."""
    counted: dict[str, Counter[str]] = {}
    for each in prompts:
        for key in each.keys() - NO_LABELS:
            counted.setdefault(key, Counter())[each[key]] += 1
    return {key: values.most_common(MAX_VALUES) for key, values in sorted(counted.items())}


def tag_table(prompts: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Returns how many prompts there are of each domain and discipline."""
    counted = Counter((each["domain"], each["discipline"]) for each in prompts if "discipline" in each)
    return [(*tags, number) for tags, number in sorted(counted.items(), key=lambda item: (item[0][0], -item[1]))]
