"""A run out of one home and into another; runs that are deleted."""

from __future__ import annotations

import asyncio
import sqlite3
import tarfile
from pathlib import Path

import pytest

from perilune.api.master.v1.master_pb2 import PromptSummary, RunState, Version
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_TRAIN, PolicyVersion
from perilune.cli.operating import backup, delete_runs, restore
from perilune.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StateError
from services.master.archive import delete_run, is_of_run
from services.master.records import Group, Scored
from services.master.store import Store
from services.master.tables import Base, SampleState

TABLES = Base.metadata.sorted_tables


async def make_home(home: Path, *run_ids: str) -> None:
    """Runs with a version, a group and its samples, and a checkpoint each."""
    home.mkdir()
    async with Store.open(f"sqlite+aiosqlite:///{home}/perilune.db") as store:
        for run_id in run_ids:
            await store.add_run(run_id, "{}", PromptSummary(digest=f"prompts of {run_id}").SerializeToString())
            epoch = await store.open_lease(run_id, "trains")
            version = Version(policy=PolicyVersion(number=0, digest="d"))
            await store.commit_version(run_id, epoch or 0, version, f"{home}/{run_id}/checkpoints/v000000", {})
            await store.add_groups([Group(f"{run_id}.0.0", run_id, 0, PURPOSE_TRAIN, "", 0, 7, 2)])
            await store.record_scores([Scored(f"{run_id}.0.0", 0, SampleState.SCORED, b"\0\xff" * 9, 3, value=1.0)])
            checkpoint = home / run_id / "checkpoints" / "v000000"
            checkpoint.mkdir(parents=True)
            (checkpoint / "weights").write_bytes(b"weights of " + run_id.encode())


def rows(home: Path, run_id: str) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(home / "perilune.db") as database:
        found = {}
        for table in TABLES:
            where = is_of_run(table, run_id).compile(compile_kwargs={"literal_binds": True})
            found[table.name] = database.execute(f"SELECT * FROM {table.name} WHERE {where}").fetchall()
        return found


async def run_of(home: Path, run_id: str) -> tuple[int, str]:
    async with Store.open(f"sqlite+aiosqlite:///{home}/perilune.db") as store:
        row = await store.run(run_id)
        return row.state, row.model_path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERILUNE_HOME", "")  # the commands set it
    monkeypatch.delenv("PERILUNE_DATABASE_URL", raising=False)
    asyncio.run(make_home(tmp_path / "one", "sums", "words"))
    return tmp_path


def test_a_run_goes_to_another_home_and_nothing_else_does(here: Path) -> None:
    backup("sums", here / "one", here / "sums.tar")
    restore(here / "sums.tar", here / "two")
    before, after = rows(here / "one", "sums"), rows(here / "two", "sums")
    assert [len(found) for found in after.values()] == [len(found) for found in before.values()]
    assert after["samples"] == before["samples"]
    assert after["groups"] == before["groups"]
    assert not any(rows(here / "two", "words").values())
    assert (here / "two/sums/checkpoints/v000000/weights").read_bytes() == b"weights of sums"
    state, model_path = asyncio.run(run_of(here / "two", "sums"))
    assert (state, model_path) == (RunState.RUN_STATE_STOPPED, f"{here}/two/sums/checkpoints/v000000")
    with pytest.raises(AlreadyExistsError, match="is there already"):
        restore(here / "sums.tar", here / "two")


def test_a_backup_that_is_none_or_damaged_changes_nothing(here: Path) -> None:
    (here / "none.tar").write_bytes(b"no tar")
    with pytest.raises(InvalidInputError, match="is no backup"):
        restore(here / "none.tar", here / "two")
    backup("sums", here / "one", here / "sums.tar")
    damaged = (here / "sums.tar").read_bytes().replace(b"weights of sums", b"weights of sins")
    (here / "sums.tar").write_bytes(damaged)
    with pytest.raises(InvalidInputError, match="run/checkpoints/v000000/weights is not what was written"):
        restore(here / "sums.tar", here / "two")
    assert sorted(path.name for path in (here / "two").iterdir()) == []
    with pytest.raises(NotFoundError, match="no run 'sum'"):
        backup("sum", here / "one", here / "sum.tar")
    assert not (here / "sum.tar").exists()


def test_a_backup_names_no_path_outside(here: Path) -> None:
    with tarfile.open(here / "hostile.tar", "w") as archive:
        archive.add(here / "one" / "perilune.db", "../../outside")
    with pytest.raises(InvalidInputError, match="is no backup"):
        restore(here / "hostile.tar", here / "two")
    assert not (here / "outside").exists()


def test_ended_runs_are_deleted_with_their_folders(here: Path) -> None:
    with pytest.raises(InvalidInputError, match="--older-than"):
        delete_runs([], here / "one", None, dry_run=False)
    with sqlite3.connect(here / "one" / "perilune.db") as database:
        database.execute("UPDATE runs SET state = 6, submitted_ns = 5 WHERE id = 'sums'")
    delete_runs([], here / "one", 1.0, dry_run=True)
    assert (here / "one/sums").exists()
    delete_runs([], here / "one", 1.0, dry_run=False)
    assert not (here / "one/sums").exists()
    assert not any(rows(here / "one", "sums").values())
    assert (here / "one/words").exists()
    assert rows(here / "one", "words")["samples"]


async def test_a_run_that_a_master_works_on_is_not_deleted(tmp_path: Path) -> None:
    await make_home(tmp_path / "one", "sums")
    with pytest.raises(StateError, match="has not ended"):
        await delete_run(f"sqlite+aiosqlite:///{tmp_path}/one/perilune.db", "sums")
