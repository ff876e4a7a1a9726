"""Homes that are dead, damaged, or of another version: what a master, the command line and a reader say of them."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perilune.api.master.v1 import master_pb2 as m
from perilune.local.short_lived import reading_master
from perilune.local.stored_runs import stored_runs
from perilune.recipe import check_recipe
from perilune.runtime.service import open_channel
from services.master.config import MasterSettings
from services.master.migrate import migrate
from services.master.single_master import has_master, single_master
from services.master.store import Store
from tests.integration.test_master import RECIPE, Master, master_on
from tests.unit.cli.test_commands import perilune

GOOD = check_recipe(RECIPE).model_dump_json()


def url_of(home: Path) -> str:
    return f"sqlite+aiosqlite:///{home / 'perilune.db'}"


async def make_home(home: Path, **recipes: str) -> None:
    async with Store.open(url_of(home)) as store:
        for name, recipe in recipes.items():
            await store.add_run(name, recipe)


def change(home: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(home / "perilune.db")) as database, database:
        database.execute(statement, values)


@asynccontextmanager
async def reader_of(home: Path) -> AsyncIterator[Master]:
    async with reading_master(home) as address, open_channel(address) as channel:
        yield Master(None, channel)  # type: ignore[arg-type]


def recipe_with(**changes: object) -> str:
    return json.dumps(json.loads(GOOD) | changes)


async def test_one_run_that_cannot_be_read_hides_no_other_and_is_shown_with_what_is_wrong(
    nats_url: str, tmp_path: Path
) -> None:
    stranger = {"source": "telepathy", "name": "search"}
    await make_home(
        tmp_path,
        good=GOOD,
        newer=recipe_with(quantum={"entangled": True}),
        garbage="\x00 no JSON",
        listed="[1, 2]",
        stranger=recipe_with(prompts=stranger),
        state=GOOD,
        counts=GOOD,
    )
    change(tmp_path, "UPDATE runs SET state = 99 WHERE id = 'state'")
    change(tmp_path, "INSERT INTO evaluations VALUES ('counts', 0, 'greedy', 'd', 0, 0, 'none')")
    expected = {
        "good": "",
        "newer": "",
        "garbage": "this version cannot read the stored recipe",
        "listed": "this version cannot read the stored recipe",
        "stranger": "prompts: the key 'source' says 'telepathy'",
        "state": "its state 99 is not known to this version",
        "counts": "its results cannot be read",
    }
    async with master_on(nats_url, tmp_path) as master:
        runs = {run.id: run for run in (await master.runs.ListRuns(m.ListRunsRequest())).runs}
        assert runs.keys() == expected.keys()
        for run_id, problem in expected.items():
            assert problem in runs[run_id].problem, run_id
            assert bool(problem) == bool(runs[run_id].problem), run_id
            assert (await master.run(run_id)).recipe_json == runs[run_id].recipe_json
        assert runs["stranger"].num_iterations == 2
        call, assignment = await master.acquire()  # what cannot be read keeps no trainer from the rest
        assert assignment.run_id in ("good", "newer", "counts")
        call.cancel()
    listed = perilune("run", "list", "--home", tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "this version cannot read the stored recipe: prompts: the key 'source' says 'telepathy'" in " ".join(
        listed.stdout.split()
    )
    for run_id in ("garbage", "stranger"):
        shown = perilune("run", "show", run_id, "--home", tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert run_id in shown.stdout


async def test_what_was_under_way_in_a_home_without_a_master_is_interrupted(tmp_path: Path) -> None:
    states = ["pending", "starting", "running", "stopping", "stopped", "finished", "failed"]
    await make_home(tmp_path, **dict.fromkeys(states, GOOD))
    for number, state in enumerate(states, start=1):
        change(tmp_path, "UPDATE runs SET state = ?, reason = 'before' WHERE id = ?", number, state)
    async with reader_of(tmp_path) as reader:
        found = {run.id: run for run in (await reader.runs.ListRuns(m.ListRunsRequest())).runs}
        assert {run.id for run in found.values() if run.state == m.RUN_STATE_INTERRUPTED} == set(states[:4])
        assert "`perilune run resume running`" in found["running"].reason
        assert (found["failed"].state, found["failed"].reason) == (m.RUN_STATE_FAILED, "before")
        async with single_master(url_of(tmp_path)):  # another master works on it, and this one only reads
            assert await has_master(url_of(tmp_path))
            assert (await reader.run("running")).state == m.RUN_STATE_RUNNING
        assert (await reader.run("running")).state == m.RUN_STATE_INTERRUPTED
    listed = perilune("run", "list", "--home", tmp_path)
    assert "running: its services have ended; `perilune run resume running`" in " ".join(listed.stdout.split())
    assert [run["state"] for run in json.loads(perilune("run", "list", "--home", tmp_path, "--json").stdout)].count(
        "interrupted"
    ) == 4


async def test_a_reader_brings_an_older_database_up_to_date(tmp_path: Path) -> None:
    await make_home(tmp_path, old=GOOD)
    database_url = f"sqlite+aiosqlite:///{tmp_path}/perilune.db"
    await migrate(MasterSettings(home=tmp_path, database_url=database_url), "0004")
    async with reader_of(tmp_path) as reader:
        assert (await reader.run("old")).num_iterations == 2


async def test_a_dead_homes_list_is_read_from_its_file_and_is_what_a_reader_says(tmp_path: Path) -> None:
    await make_home(tmp_path, done=GOOD, under_way=GOOD)
    change(tmp_path, "UPDATE runs SET state = ?, reason = 'finished', model_path = 'x' WHERE id = 'done'", 6)
    columns = "(run_id, number, digest, num_samples, num_tokens, metrics, committed_ns, model_path, closed)"
    for number in (0, 1):
        row = ("done", number, f"d{number}", 4, 9, "{}", 5, "", True)
        change(tmp_path, f"INSERT INTO versions {columns} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)
    for mode, num_correct in (("sampled", 5), ("greedy", 7)):
        change(tmp_path, "INSERT INTO evaluations VALUES ('done', 1, ?, 'd1', 10, ?, 3.5)", mode, num_correct)
    found = stored_runs(tmp_path)
    async with reader_of(tmp_path) as reader:
        asked = list((await reader.runs.ListRuns(m.ListRunsRequest())).runs)
    for run in asked:
        run.ClearField("ledger")
    assert found == asked
    assert [(run.id, run.state) for run in asked] == [
        ("under_way", m.RUN_STATE_INTERRUPTED),
        ("done", m.RUN_STATE_FINISHED),
    ]


async def test_what_does_not_read_plainly_is_left_to_a_master(tmp_path: Path) -> None:
    assert stored_runs(tmp_path) is None
    await make_home(tmp_path, run=GOOD)
    async with single_master(url_of(tmp_path)):
        assert stored_runs(tmp_path) is None
    assert len(stored_runs(tmp_path) or []) == 1
    for state in (99, "running"):
        change(tmp_path, "UPDATE runs SET state = ?", state)
        assert stored_runs(tmp_path) is None


def start(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PERILUNE_HOME": str(home), "PERILUNE_LISTEN": "127.0.0.1:0"} | settings
    command = [sys.executable, "-m", "services.master"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def damage(kind: str, home: Path) -> None:
    database = home / "perilune.db"
    if kind == "newer":
        change(home, "UPDATE alembic_version SET version_num = '9999'")
    elif kind == "no database":
        database.write_bytes(b"this is a diary, and no database" * 100)
    elif kind == "folder":
        database.unlink()
        database.mkdir()
    elif kind == "torn":
        database.write_bytes(database.read_bytes()[:4096] + os.urandom(8192))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("newer", "schema of a newer version (revision 9999); this is perilune"),
        ("no database", "is no database"),
        ("folder", "cannot be opened"),
        ("torn", "is damaged"),
    ],
)
async def test_a_database_that_cannot_be_used_is_one_line_and_exit_status_2(
    kind: str, said: str, tmp_path: Path
) -> None:
    await make_home(tmp_path, run=GOOD)
    for leftover in tmp_path.glob("perilune.db-*"):
        leftover.unlink()
    damage(kind, tmp_path)
    done = start(tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    listed = perilune("run", "list", "--home", tmp_path)
    assert listed.returncode == 2
    assert said in listed.stderr
    assert len(listed.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr + listed.stderr


async def test_a_locked_and_a_read_only_database_are_named(tmp_path: Path) -> None:
    await make_home(tmp_path, run=GOOD)
    change(tmp_path, "UPDATE alembic_version SET version_num = '0003'")  # there is something to write
    change(tmp_path, "ALTER TABLE runs DROP COLUMN lease_epoch")
    with contextlib.closing(sqlite3.connect(tmp_path / "perilune.db")) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        locked = start(tmp_path)
    assert (locked.returncode, "Traceback" in locked.stderr) == (2, False)
    assert "is locked by another program" in locked.stderr
    read_only = f"sqlite+aiosqlite:///file:{tmp_path / 'perilune.db'}?mode=ro&uri=true"
    done = start(tmp_path, PERILUNE_DATABASE_URL=read_only)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "may not be written" in done.stderr


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file")
    done = start(home)
    assert done.returncode == 2
    assert f"PERILUNE_HOME {home} cannot be made a folder" in done.stderr
