"""The report of warm-up data as one HTML page that needs no network: the same numbers as report.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perilune.pages import render
from perilune.recipe import toml


def page_of(
    report: Mapping[str, Any], manifest: Mapping[str, Any], examples: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """The page."""
    plan = manifest["plan"]
    return render(
        "perilune.warmup_data",
        "report.html",
        report=report,
        manifest=manifest,
        model=plan["writer"]["model"] or plan["writer"]["path"],
        styles=plan["styles"],
        examples=examples,
        plan=toml.dumps(plan),
    )
