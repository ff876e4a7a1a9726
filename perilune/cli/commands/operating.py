"""What operators do with a home, its database and its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import DEFAULT_HOME, AsJson, Home, Master, RunArgument

app = typer.Typer()
dead_app = typer.Typer(no_args_is_help=True, help="See messages that were given up; retry or drop them.")
app.add_typer(dead_app, name="dead")

Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="`perilune dead list` shows them.")]
OfRun = Annotated[str, typer.Option("--run", metavar="RUN", help="Of this run only.")]


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


@app.command()
def backup(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Where it goes, a tar file.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Write a run to one file, from which `perilune restore` puts it on another machine. It may go on meanwhile.

    In it: the run's rows of the database, its checkpoints and versions, the digest of its prompt set. Not in it: its
    prompts, and what is on the bus, which is asked for again.
    """
    from perilune.cli import operating

    operating.backup(run, home, out)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Put a backup into a home (and the database of PERILUNE_DATABASE_URL), as a stopped run to be resumed."""
    from perilune.cli import operating

    operating.restore(file, home)


@dead_app.command("list")
def dead_list(run: OfRun = "", home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """List the messages that were given up, with the reasons."""
    from perilune.cli import dead

    dead.show_all(run, home, master, as_json)


@dead_app.command("show")
def dead_show(
    number: Number,
    payload: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the message itself, as its bytes, to this file.")
    ] = None,
    home: Home = DEFAULT_HOME,
    master: Master = None,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of one message that was given up."""
    from perilune.cli import dead

    dead.show(number, home, master, as_json, payload)


@dead_app.command("retry")
def dead_retry(number: Number, home: Home = DEFAULT_HOME, master: Master = None) -> None:
    """Give a message another try: samples that it ended are awaited again, as long as their batch is not settled."""
    from perilune.cli import dead

    dead.retry(number, home, master)


@dead_app.command("drop")
def dead_drop(
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Which ones.")] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="All that there are, or all of --run.")] = False,
    run: OfRun = "",
    home: Home = DEFAULT_HOME,
    master: Master = None,
) -> None:
    """Forget messages that were given up; the ledger keeps what became of their samples."""
    from perilune.cli import dead

    dead.drop(numbers or [], run, home, master, all_of_them=all_of_them)
