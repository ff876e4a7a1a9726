"""Runs that there are."""

from __future__ import annotations

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
    Rewards,
    Rollouts,
    RunArgument,
    TrainerRanks,
    end,
)

app = typer.Typer()
run_app = typer.Typer(no_args_is_help=True, help="Look at runs, stop them, continue them.")


@run_app.command("list")
def list_runs(home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """List all runs, newest first."""
    from perilune.cli import listing

    listing.list_runs(home, master, as_json)


@run_app.command()
def show(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """Show what a run did: accuracy, curves, samples, weights, ledger."""
    from perilune.cli import inspect

    inspect.show(run, home, master, as_json)


@run_app.command()
def watch(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None, no_view: NoView = False) -> None:
    """Watch a run until it ends. Ctrl-C leaves the run alone."""
    from perilune.cli import inspect

    end(inspect.watch(run, home, master, live=not no_view))


@run_app.command("export")
def export_run(
    run: RunArgument,
    home: Home = DEFAULT_HOME,
    master: Master = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Write TensorBoard's event files below this folder.")] = None,
    wandb: Annotated[str | None, typer.Option(help="Write to this project of Weights & Biases.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run ends.")] = False,
) -> None:
    """Write a run's curves for TensorBoard or Weights & Biases."""
    from perilune.cli import inspect

    inspect.export(run, home, master, tensorboard, wandb, follow)


@run_app.command()
def samples(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the JSON lines go.")],
    iteration: Annotated[int, typer.Option(min=0, help="That asked for the samples.")] = 0,
    home: Home = DEFAULT_HOME,
    master: Master = None,
) -> None:
    """Write an iteration's graded answers, a row each, as `perilune shortest` reads them."""
    from perilune.cli import inspect

    inspect.samples(run, out, iteration, home, master)


@run_app.command()
def stop(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None) -> None:
    """Stop a run after the step at hand, and wait until it has stopped."""
    from perilune.cli import inspect

    inspect.stop(run, home, master)


@run_app.command()
def resume(
    run: RunArgument,
    set_: Overrides = None,
    home: Home = DEFAULT_HOME,
    rollouts: Rollouts = None,
    rewards: Rewards = 1,
    trainer_ranks: TrainerRanks = 1,
    master: Master = None,
    page: Page = None,
    no_view: NoView = False,
    as_json: AsJson = False,
) -> None:
    """Continue a stopped or failed run from its last version, starting the services if none run.

    Its recipe is kept with it; `--set trainer.num_iterations=N`, more than before, is all that can be changed.
    """
    from perilune.cli import training

    target = training.RunTarget(home, master, rollouts, rewards, trainer_ranks, page)
    num_iterations = training.iterations_in(set_ or [])
    end(training.resume(run, target, training.Screen(not no_view, as_json), num_iterations))


@run_app.command()
def extend(
    run: RunArgument,
    num_iterations: Annotated[int, typer.Argument(min=1, help="In all, with those that are done.")],
    home: Home = DEFAULT_HOME,
    rollouts: Rollouts = None,
    rewards: Rewards = 1,
    trainer_ranks: TrainerRanks = 1,
    master: Master = None,
    page: Page = None,
    no_view: NoView = False,
    as_json: AsJson = False,
) -> None:
    """Give a finished, stopped or failed run more iterations, and go on from its last version.

    Optimiser, prompts and random numbers go on too, as if it had been planned so.
    """
    from perilune.cli import training

    target = training.RunTarget(home, master, rollouts, rewards, trainer_ranks, page)
    end(training.resume(run, target, training.Screen(not no_view, as_json), num_iterations))


@run_app.command("delete")
def delete_runs(
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Which ones.")] = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="All ended runs that were submitted so long ago.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Delete runs that have ended: their rows, checkpoints and versions. `perilune backup` keeps one before."""
    from perilune.cli import operating

    operating.delete_runs(runs or [], home, older_than, dry_run=dry_run)


@app.command()
def ledger(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """Show where every sample of a run went. Exit status 1 if the ledger does not balance."""
    from perilune.cli import inspect

    end(inspect.ledger(run, home, master, as_json))
