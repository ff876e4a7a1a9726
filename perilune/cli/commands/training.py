"""Runs that are made from a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import (
    DEFAULT_HOME,
    AsJson,
    Home,
    Master,
    NoView,
    Overrides,
    Page,
    RecipeArgument,
    Rewards,
    Rollouts,
    RunName,
    TrainerRanks,
    end,
)

app = typer.Typer()
recipe_app = typer.Typer(no_args_is_help=True, help="Look at recipes.")


@app.command()
def train(
    recipe: RecipeArgument,
    set_: Overrides = None,
    name: RunName = "",
    home: Home = DEFAULT_HOME,
    rollouts: Rollouts = None,
    rewards: Rewards = 1,
    trainer_ranks: TrainerRanks = 1,
    master: Master = None,
    page: Page = None,
    no_view: NoView = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: start every service on this machine, train, report, stop them.

    Ctrl-C stops the run so that it can be resumed; a second one kills. With --master the run goes to services that
    run already, and nothing is started here.
    """
    from perilune.cli import training
    from perilune.recipe.preflight import SERVICES, load_checked

    checked = load_checked(recipe, set_ or [], services=() if master else SERVICES)
    target = training.RunTarget(home, master, rollouts, rewards, trainer_ranks, page)
    end(training.submit(checked, name, target, training.Screen(not no_view, as_json)))


@app.command("eval")
def evaluate(
    recipe_or_run: Annotated[str, typer.Argument(help="A recipe's TOML file, or a run's id.")],
    model: Annotated[
        str | None, typer.Option(help="What to evaluate: a folder or Hugging Face id; a run's own weights by default.")
    ] = None,
    set_: Overrides = None,
    name: RunName = "",
    home: Home = DEFAULT_HOME,
    rollouts: Rollouts = None,
    rewards: Rewards = 1,
    master: Master = None,
    page: Page = None,
    no_view: NoView = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model's held-out accuracy on a recipe's problems, without training."""
    from perilune.cli import training

    target = training.RunTarget(home, master, rollouts, rewards, page=page)
    recipe = training.evaluation_of(recipe_or_run, model, set_ or [], target)
    end(training.submit(recipe, name, target, training.Screen(not no_view, as_json)))


@app.command()
def stages(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the Hugging Face model folder goes.")],
    set_: Overrides = None,
) -> None:
    """Run a recipe's stages before reinforcement learning alone, and write the model that they make."""
    from perilune.cli.serving import exec_module
    from perilune.recipe.preflight import load_checked

    load_checked(recipe, set_ or [], services=("trainer",))  # before torch is loaded
    overrides = [argument for override in set_ or [] for argument in ("--set", override)]
    exec_module("services.trainer.stages", [str(recipe), "--out", str(out), *overrides], {})


@recipe_app.command("check")
def check(
    recipe: RecipeArgument,
    set_: Overrides = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Also show three prompts as the model reads them, and a graded answer, as comments."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check all that can be known of a recipe before it is run, and print it as TOML with every default filled in."""
    from perilune.recipe import toml
    from perilune.recipe.preflight import load_checked

    checked = load_checked(recipe, set_ or [])
    print(checked.model_dump_json(indent=2) if as_json else toml.dumps(checked.model_dump(mode="json")), end="")
    if deep:
        from perilune.cli import looking

        looking.show(checked, sys.stderr if as_json else sys.stdout)
