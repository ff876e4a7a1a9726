"""The command line's master: the one named, the one that runs on this home, or one started for a moment to read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from perilune.channel import Credentials
from perilune.client import AsyncRunClient
from perilune.errors import NotFoundError, UnavailableError
from perilune.local.home import master_of
from perilune.local.short_lived import reading_master, recording_master


@contextlib.asynccontextmanager
async def running_master(home: Path, master: str | None) -> AsyncIterator[AsyncRunClient]:
    """A master that works. UnavailableError if none was named and none runs on this home."""
    address = master or master_of(home)
    if not address:
        raise UnavailableError(
            f"no services run on {home}; `perilune run resume RUN` starts them, --master HOST:PORT names others"
        )
    async with AsyncRunClient(address, credentials=None if master else local_credentials()) as client:
        yield client


@contextlib.asynccontextmanager
async def any_master(home: Path, master: str | None) -> AsyncIterator[AsyncRunClient]:
    """A master to read from; one is started for as long as it is asked, where none runs.

    NotFoundError if the home has no database.
    """
    async with (
        reading_place(home, master) as place,
        AsyncRunClient(place.address, credentials=place.credentials) as client,
    ):
        yield client


@dataclass(frozen=True)
class Place:
    """Says where a master answers, and with which credentials it is called; None: those of the environment."""

    address: str
    credentials: Credentials | None


@contextlib.asynccontextmanager
async def reading_place(home: Path, master: str | None) -> AsyncIterator[Place]:
    """The place of a master to read from; see `any_master`."""
    if address := master or master_of(home):
        yield Place(address, None if master else local_credentials())
        return
    # An embedded database that is not there must not be made by reading it.
    if not (home / "perilune.db").exists() and "PERILUNE_DATABASE_URL" not in os.environ:
        raise NotFoundError(f"there are no runs in {home}; name another folder with --home")
    async with reading_master(home) as address:
        yield Place(address, local_credentials())


@contextlib.asynccontextmanager
async def recording_place(home: Path, master: str | None) -> AsyncIterator[Place]:
    """The place of a master that records evaluations: the one named, the one that works on the home, or one of ours."""
    if address := master or master_of(home):
        yield Place(address, None if master else local_credentials())
        return
    async with recording_master(home) as address:
        yield Place(address, local_credentials())


def local_credentials() -> Credentials:
    """This process's credentials for services on the loopback interface: they have TLS only if we have a certificate
    for them, whatever authority is trusted for services elsewhere."""
    credentials = Credentials()
    return credentials if credentials.tls_cert else credentials.model_copy(update={"tls_ca": None})
