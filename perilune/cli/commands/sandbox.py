"""The sandbox, and the images that its programs run in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import AsJson, end

app = typer.Typer()
image_app = typer.Typer(no_args_is_help=True, help="Root file systems for the sandbox's programs.")


@app.command("exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def execute(
    file: Annotated[Path, typer.Argument(help="The program; what follows it are its arguments.", metavar="FILE")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ARG]...", show_default=False)] = None,
    language: Annotated[str, typer.Option(help="Where the file's extension does not say it.")] = "",
    beside: Annotated[
        list[Path] | None, typer.Option("--file", metavar="PATH", help="Lies beside it; may be given often.")
    ] = None,
    cpu: Annotated[float | None, typer.Option(metavar="SECONDS", help="CPU time.")] = None,
    wall: Annotated[float | None, typer.Option(metavar="SECONDS", help="Time by the clock.")] = None,
    memory: Annotated[int | None, typer.Option(metavar="MB", help="Memory of all its processes.")] = None,
    image: Annotated[str, typer.Option(metavar="NAME", help="Runs it in an image: `perilune image list`.")] = "",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", envvar="PERILUNE_SANDBOX_ADDRESS", help="A sandbox that runs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a program in a sandbox: one that runs already, or one started for it.

    Standard input goes to the program. Exit status: the program's own, or 1 if a limit or a signal ended it.
    """
    from perilune.cli import exec as sandbox

    limits = sandbox.limits(cpu, wall, memory)
    end(sandbox.run(file, arguments or [], language, beside or [], limits, image, address, as_json))


@image_app.command("add")
def image_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What programs will ask for it by.")],
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="Of `docker save`, or an OCI layout.")],
    as_json: AsJson = False,
) -> None:
    """Unpack an image's archive, check it, and keep it under a name."""
    _image("add", name, str(archive), as_json=as_json)


@image_app.command("list")
def image_list(as_json: AsJson = False) -> None:
    """List the images that are kept on this machine."""
    _image("list", as_json=as_json)


@image_app.command("remove")
def image_remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`perilune image list` shows them.")],
) -> None:
    """Remove an image; not while a program is running in it."""
    _image("remove", name, as_json=False)


def _image(*arguments: str, as_json: bool) -> None:
    from perilune.cli.serving import exec_module

    exec_module("services.sandbox.images", [*(["--json"] if as_json else []), *arguments], {})
