"""Test cases for coding problems."""

# ruff: noqa: PT028 - a command, and no test

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import end

app = typer.Typer()


@app.command("testgen")
def testgen(
    problems: Annotated[Path, typer.Argument(metavar="FILE", help='Rows of {"statement", "solutions", …}.')],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where results go; the same command goes on there.")],
    cases: Annotated[int, typer.Option(min=1, help="Inputs for each problem.")] = 50,
    min_valid: Annotated[int, typer.Option(min=1, help="Valid cases below which a problem is dropped.")] = 40,
    submissions: Annotated[int, typer.Option(min=1, help="Right ones that make the tests.")] = 10,
    min_submissions: Annotated[int, typer.Option(min=1)] = 5,
    agree: Annotated[float, typer.Option(help="Share that agrees on a valid case.")] = 0.7,
    passing: Annotated[float, typer.Option(help="Share that passes all valid cases.")] = 0.9,
    seed: int = 0,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="An OpenAI-compatible API, such as …/v1.")] = None,
    model: Annotated[str, typer.Option(help="The model there; it writes what a problem lacks.")] = "",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Problems side by side; if not given, one a processor.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", envvar="PERILUNE_SANDBOX_ADDRESS", help="A sandbox that runs.")
    ] = None,
) -> None:
    """Make test cases for coding problems (k1.5 §2.3.5) with generators and known-good submissions.

    The endpoint's key comes from PERILUNE_TESTGEN_API_KEY. Exit status 1 if a row is broken, a problem got no verdict,
    or none is kept; 130 after Ctrl-C. DIR then holds testcases.jsonl, report.html, report.json and manifest.json.
    """
    from perilune.completions import ModelTable
    from perilune.testgen.command import Means, run
    from perilune.testgen.settings import CaseSettings

    if (endpoint is None) != (not model):
        raise typer.BadParameter("--endpoint and --model go together")
    settings = CaseSettings(cases, min_valid, submissions, min_submissions, agree, passing, seed=seed)
    asked = ModelTable(url=endpoint, model=model, temperature=0.7, max_tokens=4096) if endpoint else None
    means = Means(asked, os.environ.get("PERILUNE_TESTGEN_API_KEY", ""), address)
    end(run(problems, out, settings, replace(means, at_once=concurrency) if concurrency else means))
