"""The fleet and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import DEFAULT_HOME, AsJson, Home, Master, RunArgument

fleet_app = typer.Typer(help="See who serves which version; keep versions, and go back to one.")

VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", min=0, help="`perilune fleet versions` shows them.")]


@fleet_app.callback(invoke_without_command=True)
def show_fleet(
    context: typer.Context, home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False
) -> None:
    """Show who is in the fleet, which version each serves, and where it got it from."""
    if context.invoked_subcommand is None:
        from perilune.cli import fleet as fleets

        fleets.show(home, master, as_json)


@fleet_app.command("versions")
def fleet_versions(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """List the versions that a run's trainer keeps."""
    from perilune.cli import fleet as fleets

    fleets.versions(run, home, master, as_json)


@fleet_app.command("serve")
def fleet_serve(
    run: RunArgument,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", min=0, help="The newest, and those to come, if not given.")
    ] = None,
    home: Home = DEFAULT_HOME,
    master: Master = None,
) -> None:
    """Have the fleet serve an older version, and hold back newer ones until `perilune fleet serve RUN` ends it."""
    from perilune.cli import fleet as fleets

    fleets.serve(run, version, home, master)


@fleet_app.command("pin")
def fleet_pin(
    run: RunArgument,
    version: VersionArgument,
    unpin: Annotated[bool, typer.Option("--unpin", help="Keep it no longer.")] = False,
    home: Home = DEFAULT_HOME,
    master: Master = None,
) -> None:
    """Keep a version whatever comes after it."""
    from perilune.cli import fleet as fleets

    fleets.pin(run, version, not unpin, home, master)


@fleet_app.command("export")
def fleet_export(
    run: RunArgument,
    version: VersionArgument,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where the folder goes.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Write a kept version as the fleet serves it: a Hugging Face model folder, or an adapter's as PEFT has it."""
    from perilune.cli import fleet as fleets

    fleets.export(run, version, out, home)
