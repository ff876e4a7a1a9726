"""Faults on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import AsJson, Overrides, RecipeArgument, Rewards, RunName, end

app = typer.Typer()


@app.command()
def chaos(
    recipe: RecipeArgument,
    faults: Annotated[int, typer.Option(min=0, help="How many faults.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed, the same faults.")] = 0,
    kinds: Annotated[str, typer.Option(help="Kinds of faults, with commas; all that there are, if not given.")] = "",
    targets: Annotated[
        str, typer.Option(help="Services (nats, rollout-1) or links (rollout-1>nats) that are hit; all, if not given.")
    ] = "",
    longest: Annotated[float, typer.Option(min=1, help="Seconds that a fault lasts at most; most are shorter.")] = 40.0,
    hung: Annotated[float, typer.Option(min=1, help="Seconds without progress that count as hung.")] = 120.0,
    set_: Overrides = None,
    name: RunName = "",
    home: Annotated[Path | None, typer.Option(help="The folder of its runs; a new one if not given.")] = None,
    rollouts: Annotated[int, typer.Option(min=1, help="Rollout workers.")] = 2,
    rewards: Rewards = 1,
    as_json: AsJson = False,
) -> None:
    """Run a recipe on services of its own, inflict faults on them, and check the ledger sample by sample.

    Processes are killed and stopped, services and the database taken away, connections cut and slowed, the bus emptied,
    malformed messages sent. Exit status 1 if a sample was lost or counted twice, or a run hung.
    """
    from perilune.cli import chaos as campaigns
    from perilune.recipe.preflight import load_checked

    checked = load_checked(recipe, set_ or [])
    wanted = campaigns.Wanted(seed, faults, _names(kinds), _names(targets), longest, rollouts, rewards, hung)
    end(campaigns.chaos(checked, name, home, wanted, as_json))


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))
