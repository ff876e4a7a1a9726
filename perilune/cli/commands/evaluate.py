"""Evaluations of models by tasks."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from perilune.cli.commands.options import DEFAULT_HOME, AsJson, Grading, Home, Master, end

app = typer.Typer()


@app.command("evaluate")
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="RUN, RUN@VERSION, a folder, package:NAME, a Hugging Face id, or an endpoint's URL."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASK]…", help="NAME, NAME=FILE, FILE.jsonl, lm-eval:NAME, inspect:NAME or FILE.py."),
    ] = None,
    list_tasks: Annotated[bool, typer.Option("--list", help="Show the tasks, and end.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems of each task, spread over its data.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Responses to each problem; the task's own.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="The task's own, if not given.")] = None,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of a response; the task's own.")] = None,
    system: Annotated[str, typer.Option(help="A system message.")] = "",
    plain: Annotated[bool, typer.Option("--plain", help="No chat template: the question is a text to go on.")] = False,
    grader: Annotated[
        list[str] | None, typer.Option(help="For prompts of your own: a name, or JSON; may be given often.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Measure the run's versions by its recipe's [[evaluate]], until it ends.")
    ] = False,
    name: Annotated[str, typer.Option("--model", help="The model at an endpoint that serves several.")] = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Responses that are drawn at once.")] = 16,
    again: Annotated[bool, typer.Option("--again", help="Measure also what is recorded already.")] = False,
    home: Home = DEFAULT_HOME,
    master: Master = None,
    rewards: Grading = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model by tasks, and record scores and samples (docs/evaluation.md).

    The same command goes on where it was stopped. An endpoint's key comes from PERILUNE_EVALUATE_API_KEY.
    """
    from perilune.cli import evaluating

    if list_tasks:
        evaluating.list_tasks(as_json)
        return
    if follow and model and not tasks:
        end(evaluating.follow(model, home, master))
    if model is None or not tasks or follow:
        raise typer.BadParameter("name a model and a task (`--list` shows them), or a run with --follow")
    from perilune.evaluation.command import Request
    from perilune.evaluation.own import Sampling

    request = Request(
        model,
        tasks,
        home,
        Sampling(samples, temperature, top_p, max_tokens, system, plain, concurrency),
        name,
        limit,
        evaluating.read_grader_options(grader or []),
        rewards,
        again,
        os.environ.get("PERILUNE_EVALUATE_API_KEY", ""),
    )
    end(evaluating.run(request, master, as_json))


@app.command("evaluations")
def evaluations(
    evaluation: Annotated[str, typer.Argument(help="An evaluation's id, to see its samples.")] = "",
    run: Annotated[str, typer.Option(metavar="RUN", help="Only this run's.")] = "",
    task: Annotated[str, typer.Option(help="Only this task's.")] = "",
    home: Home = DEFAULT_HOME,
    master: Master = None,
    as_json: AsJson = False,
) -> None:
    """Show what was measured, newest first; of one evaluation its samples."""
    from perilune.cli import evaluating

    evaluating.show(home, master, run, task, evaluation, as_json)
