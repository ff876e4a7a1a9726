"""The commands and their options, a file a family. What they do is imported when it is done, so that `perilune --help`
answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from perilune.cli.commands import (
    chaos,
    data,
    evaluate,
    fleet,
    merge,
    operating,
    reward,
    runs,
    sandbox,
    services,
    sft,
    testgen,
    training,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reinforcement learning for language models, as services.",
)
for family in (training, sft, merge, runs, evaluate, data, reward, sandbox, testgen, chaos, operating, services):
    app.add_typer(family.app)
app.add_typer(runs.run_app, name="run")
app.add_typer(fleet.fleet_app, name="fleet")
app.add_typer(training.recipe_app, name="recipe")
app.add_typer(reward.reward_app, name="reward")
app.add_typer(sandbox.image_app, name="image")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib import metadata

        print(metadata.version("perilune"))
        raise typer.Exit
