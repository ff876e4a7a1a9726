"""Supervised fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import AsJson, PlanOverrides

app = typer.Typer()


@app.command("sft")
def sft(
    data: Annotated[
        list[Path], typer.Argument(metavar="PLAN.toml|DATA…", help="A plan, or files of rows for the default plan.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where model, metrics and report go.")],
    model: Annotated[
        str | None, typer.Option(help="What is trained: a folder, a Hugging Face id, package:NAME.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Stages that are shipped: k15, those of k1.5 §2.5.2.")] = None,
    heldout: Annotated[Path | None, typer.Option(metavar="FILE", help="Rows to measure the loss on.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the rows; 1 if not given.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples of a step; 32 if not given.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its peak; 1e-5 if not given.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of an example; the context if not given.")] = None,
    learn: Annotated[list[str] | None, typer.Option(metavar="ROLE", help="Whose messages; may be given often.")] = None,
    lora: Annotated[int | None, typer.Option(metavar="RANK", help="Train adapters of this rank alone.")] = None,
    overrides: PlanOverrides = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a model on conversations, prompts with completions, or texts (k1.5 §2.5.2).

    The same command goes on where it was stopped. DIR then holds model, metrics.jsonl, left_out.jsonl and report.json.
    """
    import os

    from perilune.cli.serving import exec_module
    from perilune.sft.folder import open_folder
    from perilune.sft.plan import read_plan

    flags = {
        "heldout_path": [os.path.abspath(heldout)] if heldout else None,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "max_length": max_length,
        "learn": learn or None,
    }
    changes = [*([f"trainer.adapter.rank={lora}"] if lora else []), *(overrides or [])]
    folder = open_folder(out, read_plan(data, flags, model, preset, changes))
    if folder.report.exists():
        print(folder.report.read_text(encoding="utf-8") if as_json else f"done already: {folder.model}")
        return
    exec_module("services.trainer.sft", [str(out), *(["--json"] if as_json else [])], {})
