"""What operators do with a home, its database and its runs."""

from __future__ import annotations

from typing import Annotated

import typer

from perilune.cli.commands.options import DEFAULT_HOME, AsJson, Home

app = typer.Typer()


@app.command()
def migrate(
    to: Annotated[
        str, typer.Option(metavar="REVISION", help="Forward or back to it; this version's if not given.")
    ] = "",
    show: Annotated[bool, typer.Option("--show", help="Only say which revision the database has.")] = False,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Bring the database (the home's, or that of PERILUNE_DATABASE_URL) to this version's schema, or to a revision.

    A master does that by itself, forward. Back, for an older version: what its schema has no column for is lost. Exit
    status 2 where a newer version has written it.
    """
    from perilune.cli import operating

    operating.migrate(home, to, as_json, show=show)
