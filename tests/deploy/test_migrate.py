"""The migration job of a cluster: `python -m services.master.migrate`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from services.master.store import Store


def migrate(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PERILUNE_HOME": str(home)} | settings
    command = [sys.executable, "-m", "services.master.migrate"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


async def test_a_database_has_the_schema_afterwards_and_a_master_finds_nothing_to_do(tmp_path: Path) -> None:
    assert migrate(tmp_path).returncode == 0
    database = tmp_path / "perilune.db"
    with sqlite3.connect(database) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"runs", "groups", "samples", "alembic_version"} <= tables
    async with Store.open(f"sqlite+aiosqlite:///{database}", migrate=False) as store:
        assert await store.runs() == []
    again = migrate(tmp_path)
    assert again.returncode == 0
    assert "Running upgrade" not in again.stderr


def test_a_password_that_is_not_there_ends_it_with_the_settings_name(tmp_path: Path) -> None:
    done = migrate(tmp_path, PERILUNE_DATABASE_PASSWORD_FILE=str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "PERILUNE_DATABASE_PASSWORD_FILE" in done.stderr
