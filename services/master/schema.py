"""The database's schema: which revision it has, and how it is brought to this version's."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from importlib import metadata
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from perilune.errors import InvalidInputError, SettingsError, StateError, UnavailableError

MIGRATIONS = Path(__file__).parent / "migrations"
TABLE = "alembic_version"

# What SQLite finds wrong with a file, by the names of its error codes, and what there is to do.
_FILE_ERRORS = {
    "SQLITE_NOTADB": "is no database; name another folder with PERILUNE_HOME (--home), or move the file away",
    "SQLITE_CORRUPT": "is damaged; restore it from a copy, or name another folder with PERILUNE_HOME (--home)",
    "SQLITE_READONLY": "may not be written by this user; give its folder and files to the user of the services",
    "SQLITE_CANTOPEN": "cannot be opened: its folder is missing or closed to this user, or it is no plain file",
    "SQLITE_PERM": "may not be opened by this user; give its folder and files to the user of the services",
    "SQLITE_BUSY": "is locked by another program; end what has it open, and start again",
    "SQLITE_LOCKED": "is locked by another program; end what has it open, and start again",
    "SQLITE_FULL": "lies on a disk that is full",
    "SQLITE_IOERR": "cannot be read or written: its disk fails",
}


# What passes by itself, or by making room: a service waits for it as for a database that does not answer.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")


class BlockedFileError(SettingsError, UnavailableError):
    """The database's file cannot be written now: locked, or its disk is full. It may be later."""


class OlderSchemaError(StateError):
    """The schema is of an older version, and this master may only read."""


def bring_up_to_date(connection: Connection, shown: str) -> None:
    """Migrates to this version's schema. SettingsError if a newer version has migrated it further."""
    if _is_older(connection, shown):
        command.upgrade(_config(connection), "head")


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def check(connection: Connection, shown: str) -> None:
    """OlderSchemaError, or SettingsError for a newer one, if the schema is not this version's."""
    if _is_older(connection, shown):
        raise OlderSchemaError(
            f"the database {shown} has the schema of an older version; a master brings it up to date"
        )


def _is_older(connection: Connection, shown: str) -> bool:
    # Not asked of Alembic, which logs each time which dialect it speaks.
    is_new = not inspect(connection).has_table(TABLE)
    found = None if is_new else connection.scalar(text(f"SELECT version_num FROM {TABLE}"))
    scripts = ScriptDirectory(str(MIGRATIONS))
    head = scripts.get_current_head()
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise SettingsError(
            f"the database {shown} has the schema of a newer version (revision {found}); this is perilune "
            f"{metadata.version('perilune')}, which knows revisions up to {head}: use the version that wrote it or a "
            "newer one, or name another folder with PERILUNE_HOME (--home)"
        )
    return found != head


def revisions() -> list[str]:
    """Every revision of the schema, the oldest first."""
    return [script.revision for script in reversed(list(ScriptDirectory(str(MIGRATIONS)).walk_revisions()))]


def revision_of(connection: Connection, shown: str) -> str | None:
    """The revision that a database has; None if it has no tables. SettingsError if a newer version wrote it."""
    _is_older(connection, shown)
    return connection.scalar(text(f"SELECT version_num FROM {TABLE}")) if inspect(connection).has_table(TABLE) else None


def migrate_to(connection: Connection, shown: str, revision: str) -> None:
    """Migrates forward or back to a revision. What an older schema has no column for is lost.

    Raises:
        InvalidInputError: there is no such revision.
        SettingsError: a newer version has migrated it further.
    """
    known = revisions()
    if revision not in known:
        raise InvalidInputError(f"there is no revision {revision!r} of the database; there are {', '.join(known)}")
    found = revision_of(connection, shown)
    if found != revision:
        is_forward = found is None or known.index(found) < known.index(revision)
        (command.upgrade if is_forward else command.downgrade)(_config(connection), revision)


def check_file(path: str) -> None:
    """SettingsError if a file is no SQLite database, or cannot be used as one.

    Opened plainly: where opening fails, the thread of the asynchronous driver would write a traceback of its own.
    """
    _keep_private(path)
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise trouble_with_file(error, path) or SettingsError(f"the database {path} cannot be used: {error}") from error


def _keep_private(path: str) -> None:
    """Makes a database's file its owner's alone: it holds the secrets of runs. What SQLite puts beside it follows."""
    with contextlib.suppress(OSError):  # which SQLite will have words for
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT, 0o600))
        if os.stat(path).st_uid == os.geteuid():
            os.chmod(path, 0o600)


def trouble_with_file(error: BaseException, shown: str) -> SettingsError | None:
    """Returns what is wrong with an SQLite file, in words, if that is what an error says."""
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    name = str(getattr(original, "sqlite_errorname", ""))
    known = next((text for code, text in _FILE_ERRORS.items() if name.startswith(code)), None)
    kind = BlockedFileError if name.startswith(_PASSING) else SettingsError
    return kind(f"the database {shown} {known} ({original})") if known else None
