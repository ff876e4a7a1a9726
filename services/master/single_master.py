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

from perilune.errors import InvalidInputError, SettingsError, StateError, UnavailableError
from perilune.local.stored_runs import is_held

LOCK_KEY = int.from_bytes(b"perilune", "big")  # of the advisory lock; the same for every master of a database
TAKEOVER_S = 10.0  # a predecessor that is ending gets so long
LOOK_EVERY_S = 2.0
ENDING_S = 10.0  # a master whose launcher is gone ends within a second or two, on a machine with nothing else to do
# Whether the advisory lock of a key of 64 bits is held, by its halves.
_HELD = """
SELECT EXISTS (SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
WHERE datname = current_database() AND locktype = 'advisory' AND granted AND objsubid = 1
AND classid = CAST(:high AS bigint) AND objid = CAST(:low AS bigint))"""
REFUSALS = ("28", "3D")  # SQLSTATE classes: wrong user or password, no such database


@contextlib.asynccontextmanager
async def single_master(database: str) -> AsyncIterator[Awaitable[None]]:
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
    hold = _hold_file(_file_of(url)) if url.get_backend_name() == "sqlite" else _hold_lock(url)
    async with hold as lost:
        yield lost


async def has_master(database: str) -> bool:
    """Tests whether a master holds the database. UnavailableError if it does not answer."""
    url = make_url(database)
    if url.get_backend_name() == "sqlite":
        return is_held(_file_of(url))
    return await _is_lock_held(url)


async def until_released(database: str, patience_s: float = ENDING_S) -> None:
    """Returns when no master holds an SQLite database, or after the patience."""
    deadline = time.monotonic() + patience_s
    while make_url(database).get_backend_name() == "sqlite" and await has_master(database):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def _hold_file(path: Path) -> AsyncIterator[Awaitable[None]]:
    """A lock on a file beside the database; the kernel lets go of it when this process ends, however it ends."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SettingsError(f"{path}.lock cannot be written, beside the database: {error.strerror}") from error
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


def _file_of(url: URL) -> Path:
    return Path((url.database or "").removeprefix("file:"))


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
                f"{shown} rejects the connection: {error.orig}; look at PERILUNE_DATABASE_URL and "
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


async def _is_lock_held(url: URL) -> bool:
    engine = create_async_engine(url, poolclass=NullPool)
    keys = {"high": LOCK_KEY >> 32, "low": LOCK_KEY & 0xFFFFFFFF}
    try:
        async with engine.connect() as connection:
            return bool(await connection.scalar(text(_HELD), keys))
    except (SQLAlchemyError, OSError) as error:
        raise UnavailableError(f"the database {url.render_as_string()} does not answer: {error}") from error
    finally:
        await engine.dispose()


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
