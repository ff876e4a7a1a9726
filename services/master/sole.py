"""One master a database: two would dispatch the same samples and decide about the same runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from perilune.errors import InvalidInputError, StateError, UnavailableError

LOCK_KEY = int.from_bytes(b"perilune", "big")  # of the advisory lock; the same for every master of a database
TAKEOVER_S = 10.0  # a predecessor that is ending gets so long
LOOK_EVERY_S = 2.0
REFUSALS = ("28", "3D")  # SQLSTATE classes: wrong user or password, no such database


@contextlib.asynccontextmanager
async def sole_master(database: str) -> AsyncIterator[Awaitable[None]]:
    """Holds the database for this master alone while the block runs.

    Gives what is to be awaited beside the work: it ends only when the hold is lost, with UnavailableError.

    Raises:
        StateError: another master holds it.
        InvalidInputError: the database does not know the user, the password or its own name.
        UnavailableError: the database does not answer.
    """
    try:
        url = make_url(database)
    except ArgumentError as error:
        raise InvalidInputError(f"PERILUNE_DATABASE_URL {database!r} cannot be used: {error}") from error
    hold = _hold_file(Path(url.database or "")) if url.get_backend_name() == "sqlite" else _hold_lock(url)
    async with hold as lost:
        yield lost


@contextlib.asynccontextmanager
async def _hold_file(path: Path) -> AsyncIterator[Awaitable[None]]:
    """A lock on a file beside the database; the kernel lets go of it when this process ends, however it ends."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + TAKEOVER_S
        while not _is_locked(descriptor):
            if time.monotonic() > deadline:
                raise _taken(str(path))
            await asyncio.sleep(0.2)
        yield asyncio.get_running_loop().create_future()  # cannot be lost
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.asynccontextmanager
async def _hold_lock(url: URL) -> AsyncIterator[Awaitable[None]]:
    """A lock of the server's on a connection of its own; the server lets go of it when the connection ends."""
    engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    shown = url.render_as_string(hide_password=True)
    try:
        async with engine.connect() as connection:
            await _lock(connection, shown)
            yield _until_lost(connection, shown)
    except DBAPIError as error:
        if str(getattr(error.orig, "sqlstate", "")).startswith(REFUSALS):
            raise InvalidInputError(
                f"{shown} turns us away: {error.orig}; look at PERILUNE_DATABASE_URL and "
                "PERILUNE_DATABASE_PASSWORD_FILE"
            ) from error
        raise UnavailableError(f"the database {shown} does not answer: {error.orig}") from error
    except (SQLAlchemyError, OSError) as error:
        raise UnavailableError(f"the database {shown} does not answer: {error}") from error
    finally:
        await engine.dispose()


async def _lock(connection: AsyncConnection, shown: str) -> None:
    deadline = time.monotonic() + TAKEOVER_S
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}):
        if time.monotonic() > deadline:
            raise _taken(shown)
        await asyncio.sleep(0.5)


async def _until_lost(connection: AsyncConnection, shown: str) -> None:
    """Looks at the connection again and again: with it goes the lock, and another master may have it."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError) as error:
            raise UnavailableError(f"lost the database {shown}: {error}") from error


def _taken(shown: str) -> StateError:
    return StateError(f"another master works on {shown}; stop it first, or give this one a database of its own")
