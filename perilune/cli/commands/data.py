"""Data for training: prompt sets, warm-up data, and what graded samples give."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import AsJson, Grading, PlanOverrides, end

app = typer.Typer()


@app.command()
def curate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PLAN.toml|FILE|DATASET",
            help="A plan; or, for the default plan, a file of questions, a Hugging Face dataset's folder, or its name.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where rows, decisions, prompts and the report go.")],
    overrides: PlanOverrides = None,
    rewards: Grading = None,
    as_json: AsJson = False,
) -> None:
    """Make a prompt set from raw questions: clean, without duplicates and evaluation questions, verifiable (k1.5 §2.1).

    DIR then holds prompts.jsonl, report.html and report.json. The same command goes on where it was stopped.
    """
    from perilune.cli import curating

    end(curating.run(source, out, overrides or [], rewards, as_json))


@app.command("warmup-data")
def warmup_data(
    source: Annotated[
        Path, typer.Argument(metavar="PLAN.toml|FILE", help="A plan, or a file of questions for the default plan.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where answers, data and the report go.")],
    overrides: PlanOverrides = None,
    rewards: Grading = None,
    as_json: AsJson = False,
) -> None:
    """Sample reasoning paths, keep those that graders find right, label and balance their behaviours (k1.5 §2.2).

    DIR then holds warmup.jsonl, which `[[stages]] type = "sft"` reads, report.html and report.json. The same command
    goes on where it was stopped.
    """
    from perilune.cli import warmup_data as command

    end(command.run(source, out, overrides or [], rewards, as_json))


@app.command()
def shortest(
    samples: Annotated[Path, typer.Argument(metavar="FILE", help="Rows of question, response, correct, num_tokens.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where sft.jsonl and pairs.jsonl go.")],
    longer: Annotated[
        float, typer.Option(min=1.0, help="Times the shortest, for a right answer to be rejected.")
    ] = 1.5,
    as_json: AsJson = False,
) -> None:
    """Choose the shortest right answer of each question, and pairs for DPO against it (k1.5 §2.4)."""
    import json

    from perilune.data.shortest import select

    found = select(samples, out, longer)
    said = ", ".join(f"{count:,} {name.removeprefix('num_').replace('_', ' ')}" for name, count in found.items())
    print(json.dumps(found) if as_json else f"{said}; written to {out}")
