"""A run's rows, as a database file of their own: copied out, copied in, deleted.

The file is an SQLite database with this version's schema, so that a backup of an older version is brought up to date
like any other database.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Table, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from perilune.api.master.v1.master_pb2 import PromptSummary, RunState
from perilune.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StateError
from services.master.schema import bring_up_to_date, check
from services.master.store import ENDED, opened
from services.master.tables import Base, RunRow, VersionRow

ROWS_AT_ONCE = 200
RUNS = Base.metadata.tables["runs"]


@dataclass(frozen=True)
class ArchivedRun:
    """Describes a run in a backup."""

    run_id: str
    version: int | None  # the newest that is committed
    prompts_digest: str  # of its prompt set; empty where an older version did not keep it
    num_rows: int


def is_of_run(table: Table, run_id: str) -> ColumnElement[bool]:
    """The condition that a row of a table belongs to a run: by its run, or by the row that it is part of."""
    if table is RUNS:
        return table.c.id == run_id
    if "run_id" in table.c:
        return table.c.run_id == run_id
    (key,) = table.foreign_keys
    whole = key.column.table
    return key.parent.in_(select(key.column).where(is_of_run(whole, run_id)))


async def copy_out(database: str, run_id: str, target: Path) -> ArchivedRun:
    """Copies a run's rows, as they are at one moment, to a new database file. NotFoundError if there is no such run."""
    async with (
        opened(database, check) as (source, _),
        opened(f"sqlite+aiosqlite:///{target}", bring_up_to_date) as (copy, _),
        source.connect() as reading,
        copy.begin() as writing,
    ):
        if source.dialect.name == "postgresql":
            await reading.execution_options(isolation_level="REPEATABLE READ")
        found = (await reading.execute(select(RUNS).where(RUNS.c.id == run_id))).mappings().one_or_none()
        if found is None:
            raise NotFoundError(f"there is no run {run_id!r}; `perilune run list` shows those there are")
        num_rows = await _copy(reading, writing, run_id)
        newest = await writing.scalar(select(VersionRow.number).order_by(VersionRow.number.desc()).limit(1))
    summary = PromptSummary.FromString(found["prompts"]) if found["prompts"] else PromptSummary()
    return ArchivedRun(run_id, newest, summary.digest, num_rows)


async def copy_in(database: str, source: Path, home_then: str, home_now: str) -> str:
    """Copies the run of such a file into a database, as a stopped run, and returns its id.

    `home_then`, `home_now`: where checkpoints lay and lie, which rows name.

    Raises:
        AlreadyExistsError: the database has a run of that id.
        SettingsError: the file was written by a newer version.
    """
    async with (
        opened(f"sqlite+aiosqlite:///{source}", bring_up_to_date) as (copy, _),
        opened(database, bring_up_to_date) as (target, _),
        copy.connect() as reading,
        target.begin() as writing,
    ):
        run_id = await reading.scalar(select(RUNS.c.id))
        if run_id is None:
            raise InvalidInputError(f"{source} holds no run")
        if await writing.scalar(select(RUNS.c.id).where(RUNS.c.id == run_id)):
            raise AlreadyExistsError(f"a run {run_id!r} is here already; delete it first (`perilune run delete`)")
        await _copy(reading, writing, run_id)
        await _move(writing, run_id, home_then, home_now)
        was_under_way = RunRow.id == run_id, RunRow.state.not_in(ENDED)
        stopped = {"state": RunState.RUN_STATE_STOPPED, "reason": "restored from a backup"}
        await writing.execute(update(RunRow).where(*was_under_way).values(**stopped))
    return run_id


async def _copy(reading: AsyncConnection, writing: AsyncConnection, run_id: str) -> int:
    num_rows = 0
    for table in Base.metadata.sorted_tables:
        rows = await reading.stream(select(table).where(is_of_run(table, run_id)))
        async for part in rows.mappings().partitions(ROWS_AT_ONCE):
            await writing.execute(insert(table), [dict(row) for row in part])
            num_rows += len(part)
    return num_rows


async def _move(writing: AsyncConnection, run_id: str, home_then: str, home_now: str) -> None:
    """Has the rows that name a folder of the run's old home name the one in the new."""
    for table in (RUNS, Base.metadata.tables["versions"]):
        paths = await writing.execute(select(table.c.model_path).where(is_of_run(table, run_id)).distinct())
        for path in [path for (path,) in paths if path.startswith(f"{home_then}/")]:
            moved = home_now + path.removeprefix(home_then)
            here = is_of_run(table, run_id), table.c.model_path == path
            await writing.execute(update(table).where(*here).values(model_path=moved))


async def delete_run(database: str, run_id: str, *, also_active: bool = False) -> None:
    """Deletes a run's rows.

    Raises:
        NotFoundError: there is no such run.
        StateError: it has not ended, unless `also_active`, where no master works on the database.
    """
    async with opened(database, bring_up_to_date) as (engine, _), engine.begin() as writing:
        state = await writing.scalar(select(RUNS.c.state).where(RUNS.c.id == run_id))
        if state is None:
            raise NotFoundError(f"there is no run {run_id!r}; `perilune run list` shows those there are")
        if state not in ENDED and not also_active:
            raise StateError(f"{run_id} has not ended; stop it first (`perilune run stop {run_id}`)")
        for table in reversed(Base.metadata.sorted_tables):
            await writing.execute(delete(table).where(is_of_run(table, run_id)))


async def ended_before(database: str, submitted_ns: int) -> list[str]:
    """The runs that have ended and were submitted before a moment (Unix time, in ns), the oldest first."""
    old = select(RUNS.c.id).where(RUNS.c.submitted_ns < submitted_ns, RUNS.c.state.in_(ENDED))
    async with opened(database, bring_up_to_date) as (engine, _), engine.connect() as reading:
        return list(await reading.scalars(old.order_by(RUNS.c.submitted_ns)))
