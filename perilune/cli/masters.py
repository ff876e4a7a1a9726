"""How the command line finds a master: told, running on this home, or started for a moment to read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from perilune.client import AsyncRunClient
from perilune.errors import NotFoundError, UnavailableError
from perilune.local import master_of, reading_master


@contextlib.asynccontextmanager
async def running_master(home: Path, master: str | None) -> AsyncIterator[AsyncRunClient]:
    """A master that works. UnavailableError if none was named and none runs on this home."""
    address = master or master_of(home)
    if not address:
        raise UnavailableError(
            f"no services run on {home}; `perilune run resume RUN` starts them, --master HOST:PORT names others"
        )
    async with AsyncRunClient(address) as client:
        yield client


@contextlib.asynccontextmanager
async def any_master(home: Path, master: str | None) -> AsyncIterator[AsyncRunClient]:
    """A master to read from; one is started for as long as it is asked, where none runs.

    NotFoundError if the home is no folder.
    """
    async with contextlib.AsyncExitStack() as stack:
        address = master or master_of(home)
        if not address:
            if not home.is_dir():
                raise NotFoundError(f"there is no folder {home}, so there are no runs; name another with --home")
            address = await stack.enter_async_context(reading_master(home))
        yield await stack.enter_async_context(AsyncRunClient(address))
