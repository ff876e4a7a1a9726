"""A database's schema forward and back, by revision, with what it holds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from perilune.errors import InvalidInputError, SettingsError, UnavailableError
from services.master.config import MasterSettings
from services.master.migrate import migrate, revision_now
from services.master.schema import revisions, trouble_with_file
from services.master.store import Store


def settings_of(home: Path) -> MasterSettings:
    return MasterSettings(home=home, database_url=f"sqlite+aiosqlite:///{home}/perilune.db")


async def test_a_database_goes_back_and_forward_and_keeps_its_runs(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    async with Store.open(settings.database) as store:
        await store.add_run("sums", "{}")
    for revision in (revisions()[0], revisions()[3], revisions()[-1]):
        assert await migrate(settings, revision) == revision == await revision_now(settings)
    async with Store.open(settings.database) as store:
        assert [run.id for run in await store.runs()] == ["sums"]


async def test_an_unknown_revision_and_a_newer_schema_are_named(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with pytest.raises(InvalidInputError, match="no revision '0999' of the database; there are 0001"):
        await migrate(settings, "0999")
    await migrate(settings)
    with sqlite3.connect(tmp_path / "perilune.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '0999'")
    for ask in (migrate, revision_now):
        with pytest.raises(SettingsError, match="newer version"):
            await ask(settings)


def test_what_passes_by_itself_is_waited_for() -> None:
    for code, passes in (("SQLITE_BUSY", True), ("SQLITE_FULL", True), ("SQLITE_NOTADB", False)):
        error = sqlite3.OperationalError("no")
        error.sqlite_errorname = code
        found = trouble_with_file(error, "perilune.db")
        assert isinstance(found, SettingsError)
        assert isinstance(found, UnavailableError) is passes
