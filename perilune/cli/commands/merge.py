"""Merging models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command("merge")
def merge(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="Folders, Hugging Face ids, package:NAME.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the Hugging Face model folder goes.")],
    method: Annotated[str, typer.Option(help="average, weighted, slerp or ties.")] = "average",
    weight: Annotated[list[float] | None, typer.Option(help="Of each model, in their order: weighted, ties.")] = None,
    t: Annotated[float, typer.Option("--t", help="The share of the way from the first to the second: slerp.")] = 0.5,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="What all were trained from: ties.")] = None,
    density: Annotated[float, typer.Option(help="The share of changes that is kept: ties.")] = 0.2,
) -> None:
    """Merge models of one shape and tokenizer into one (k1.5 §2.4)."""
    from perilune.cli.serving import exec_module

    options = ["--out", str(out), "--method", method, "--t", str(t), "--density", str(density)]
    options += [part for each in weight or [] for part in ("--weight", str(each))]
    options += ["--base", base] if base else []
    exec_module("services.trainer.merging", [*models, *options], {})
