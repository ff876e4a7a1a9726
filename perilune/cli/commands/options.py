"""Options of several commands, and how each command ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file; recipes/ has some.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id; `perilune run list` shows them.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Change a value of the recipe, or remove it with nothing behind the =; may be given often.",
    ),
]
PlanOverrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A key of the plan; may be given often.")
]
Grading = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="The reward service that grades; one is started if not given."),
]
Home = Annotated[
    Path, typer.Option(envvar="PERILUNE_HOME", help="The folder of runs, logs and the database.", show_default=True)
]
Master = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", envvar="PERILUNE_MASTER_ADDRESS", help="A master that runs already."),
]
Rollouts = Annotated[int | None, typer.Option(min=1, help="Rollout workers; one a core, two at most, if not given.")]
Rewards = Annotated[int, typer.Option(min=1, help="Reward workers.")]
TrainerRanks = Annotated[
    int,
    typer.Option("--trainer-ranks", min=1, help="Processes that the policy is sharded over, and trained by together."),
]
Page = Annotated[
    str | None,
    typer.Option(
        "--page",
        metavar="HOST:PORT",
        envvar="PERILUNE_HTTP_LISTEN",
        help="Where the web page is served; 127.0.0.1:7080, or a free port, if not given.",
    ),
]
NoView = Annotated[bool, typer.Option("--no-view", help="Plain lines in place of the live view.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
RunName = Annotated[str, typer.Option(metavar="RUN", help="The run's id; made from the recipe's name if not given.")]

DEFAULT_HOME = Path("runs")


def end(status: int) -> NoReturn:
    """Ends the command with this exit status."""
    raise typer.Exit(status)
