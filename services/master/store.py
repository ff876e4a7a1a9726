"""Every question to the database and every change of it: one method, one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    bindparam,
    cast,
    delete,
    event,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from perilune.api.master.v1.master_pb2 import Ledger, LedgerLine, RunState, Version
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_EVALUATE, PURPOSE_TRAIN, PolicyVersion, StageProgress
from perilune.errors import (
    AlreadyExistsError,
    NotFoundError,
    SettingsError,
    StaleLeaseError,
    StateError,
    UnavailableError,
)
from perilune.ids import SampleId
from perilune.policies import policy_name, policy_version
from perilune.runtime.telemetry import meter
from services.master.ledger import balance
from services.master.records import Awaited, Graded, Group, Partial, Scored
from services.master.schedule import Progress
from services.master.schema import bring_up_to_date, check, check_file, trouble_with_file
from services.master.tables import (
    OPEN,
    EvaluationRow,
    GroupRow,
    RunRow,
    SampleRow,
    SampleState,
    StageStepRow,
    VersionRow,
)

# The ledger's movements: how many samples came into each state.
samples_counter = meter.create_counter("perilune.master.samples", "{sample}", "Samples that came into a state.")

PART_TOKENS = 1 << 15  # of a batch, read at once
NUM_STAGE_STEPS = 200  # that are kept of each stage
PAGE_BYTES = 16 << 20  # of samples in one list
LEDGER_PAGE = 256  # groups in one list of the ledger's lines
SECRET_BYTES = 32  # of a run
MAX_INTEGER = (1 << 63) - 1  # that a column holds

ENDED = (RunState.RUN_STATE_FINISHED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_STOPPED)
# States in which a trainer may lease a run.
LEASABLE = (RunState.RUN_STATE_PENDING, RunState.RUN_STATE_STARTING, RunState.RUN_STATE_RUNNING)


def first_of_part(step: int, num_steps: int) -> int:
    """The first step, from 1, of the part that a step lies in, where all steps are cut into NUM_STAGE_STEPS parts.

    >>> [first_of_part(step, 1200) for step in (1, 6, 7, 1200)], first_of_part(3, 10)
    ([1, 1, 7, 1195], 3)
    """
    part = (step - 1) * NUM_STAGE_STEPS // num_steps
    return -(-part * num_steps // NUM_STAGE_STEPS) + 1


P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Writer(Protocol):
    """Describes what writes the database: it takes its turn, and keeps the changes that are under way."""

    turn: asyncio.Semaphore
    changes: set[asyncio.Task[Any]]


W = TypeVar("W", bound=Writer)


def whole(
    change: Callable[Concatenate[W, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[W, P], Coroutine[Any, Any, R]]:
    """Lets a change end even if its caller is cancelled.

    A transaction that is torn in the middle can keep SQLite's only write lock until its connection is collected. And
    a writer that finds that lock taken sleeps for up to 100 ms at a time, so that our own writers queue here.
    """

    async def in_turn(store: W, /, *args: P.args, **kwargs: P.kwargs) -> R:
        async with store.turn:
            return await change(store, *args, **kwargs)

    @functools.wraps(change)
    async def to_its_end(store: W, /, *args: P.args, **kwargs: P.kwargs) -> R:
        task = asyncio.create_task(in_turn(store, *args, **kwargs))
        store.changes.add(task)
        task.add_done_callback(store.changes.discard)
        return await asyncio.shield(task)

    return to_its_end


@contextlib.asynccontextmanager
async def opened(url: str, prepare: Callable[[Connection, str], T]) -> AsyncIterator[tuple[AsyncEngine, str]]:
    """Connects to a database and prepares it, by a function of a connection and of what it is called; gives the engine
    and that name. Raises what `prepare` does, SettingsError, BlockedFileError and UnavailableError as `Store.open`.
    """
    try:
        engine = create_async_engine(url)
    except (SQLAlchemyError, ModuleNotFoundError, ValueError) as error:
        raise SettingsError(f"PERILUNE_DATABASE_URL {url!r} cannot be used: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _tune_sqlite)
    shown = str(engine.url.database if engine.dialect.name == "sqlite" else engine.url)
    try:
        try:
            if engine.dialect.name == "sqlite" and not shown.startswith("file:"):
                await asyncio.to_thread(check_file, shown)
            async with engine.begin() as connection:
                await connection.run_sync(prepare, shown)
        except (SQLAlchemyError, sqlite3.Error, ConnectionError) as error:
            words = f"the database {shown} failed: {error}"
            raise trouble_with_file(error, shown) or UnavailableError(words) from error
        yield engine, shown
    finally:
        await engine.dispose()


class Store:
    """The database. Each method is one transaction; a change ends even if its caller is cancelled."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._secrets: dict[str, bytes] = {}  # by run
        self.changes: set[asyncio.Task[Any]] = set()  # under way
        self.turn = asyncio.Semaphore(1 if engine.dialect.name == "sqlite" else 16)

    @staticmethod
    @contextlib.asynccontextmanager
    async def open(url: str, *, migrate: bool = True) -> AsyncIterator[Store]:
        """Opens the database and brings its schema up to date, unless it is to be read alone (`migrate=False`).

        Raises:
            OlderSchemaError: the schema is of an older version, and is not to be migrated.
            SettingsError: the URL or the file cannot be used, or the schema is of a newer version.
            BlockedFileError: the file is locked, or its disk is full.
            UnavailableError: the database does not answer, now or later.
        """
        async with opened(url, bring_up_to_date if migrate else check) as (engine, shown):
            store = Store(engine)
            try:
                yield store
            except (SQLAlchemyError, sqlite3.Error, ConnectionError) as error:
                raise UnavailableError(f"the database {shown} failed: {error}") from error
            finally:
                await asyncio.gather(*store.changes, return_exceptions=True)

    async def is_fault_of(self, error: Exception) -> bool:
        """Tests whether the database itself failed, not the statement that it was given: locked, full, or not
        answering."""
        if isinstance(error, OperationalError | ConnectionError):
            return True
        try:
            async with self.engine.connect() as db:
                await db.execute(select(1))
        except (SQLAlchemyError, OSError):
            return True
        return False

    # ---- runs

    @whole
    async def add_run(self, run_id: str, recipe: str, prompts: bytes | None = None) -> bool:
        """Adds a run that waits for a trainer; False if it exists with the same recipe already.

        `prompts`: the PromptSummary.
        """
        async with self.engine.begin() as db:
            existing = await db.scalar(select(RunRow.recipe).where(RunRow.id == run_id))
            if existing is None:
                values = {"id": run_id, "state": RunState.RUN_STATE_PENDING, "recipe": recipe, "prompts": prompts}
                made = {"submitted_ns": time.time_ns(), "secret": secrets.token_bytes(SECRET_BYTES)}
                await db.execute(insert(RunRow).values(**values, **made))
            elif existing != recipe:
                raise AlreadyExistsError(f"a run {run_id!r} exists with another recipe; choose another name")
            return existing is None

    @whole
    async def extend_run(self, run_id: str, recipe: str, reason: str) -> None:
        """Lets an ended run wait for a trainer again, with a recipe of more iterations."""
        values = {"recipe": recipe, "state": RunState.RUN_STATE_PENDING, "reason": reason}
        async with self.engine.begin() as db:
            await db.execute(update(RunRow).where(RunRow.id == run_id, RunRow.state.in_(ENDED)).values(values))

    @whole
    async def set_prompts(self, run_id: str, prompts: bytes) -> None:
        """Keeps the PromptSummary of a run that an older version added."""
        async with self.engine.begin() as db:
            await db.execute(update(RunRow).where(RunRow.id == run_id).values(prompts=prompts))

    async def secret(self, run_id: str) -> bytes | None:
        """The secret that a run's tasks are sealed with (`seals.py`), which never changes; None if there is no run."""
        if run_id not in self._secrets:
            async with self.engine.connect() as db:
                found = await db.scalar(select(RunRow.secret).where(RunRow.id == run_id))
            if found is None:
                return None
            self._secrets[run_id] = found
        return self._secrets[run_id]

    async def run(self, run_id: str) -> RunRow:
        """The row of a run. NotFoundError if there is none."""
        async with self.engine.connect() as db:
            row = (await db.execute(select(RunRow.__table__).where(RunRow.id == run_id))).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no run {run_id!r}; `perilune run list` shows those there are")
        return RunRow(**row._mapping)

    async def runs(self) -> list[RunRow]:
        """All runs, the newest first."""
        async with self.engine.connect() as db:
            rows = await db.execute(select(RunRow.__table__).order_by(RunRow.submitted_ns.desc()))
            return [RunRow(**row._mapping) for row in rows]

    @whole
    async def set_state(self, run_id: str, state: RunState.ValueType, reason: str = "") -> None:
        """Sets the state of a run, and the reason for a reader."""
        async with self.engine.begin() as db:
            await db.execute(update(RunRow).where(RunRow.id == run_id).values(state=state, reason=reason))

    @whole
    async def end_run(
        self, run_id: str, state: RunState.ValueType, reason: str, lease_epoch: int | None = None
    ) -> bool:
        """Ends a run and every lease of it; False if it has ended already.

        `lease_epoch`: of the trainer that says so. StaleLeaseError if its lease is over.
        """
        is_open = (RunRow.id == run_id) & RunRow.state.not_in(ENDED)
        async with self.engine.begin() as db:
            if lease_epoch is not None:
                await _check_lease(db, run_id, lease_epoch)
            values = {"state": state, "reason": reason, "lease_epoch": RunRow.lease_epoch + 1}
            return (await db.execute(update(RunRow).where(is_open).values(values))).rowcount > 0

    @whole
    async def add_active_seconds(self, run_id: str, seconds: float) -> None:
        """Adds to the time in which a run was starting or running."""
        async with self.engine.begin() as db:
            total = RunRow.active_seconds + seconds
            await db.execute(update(RunRow).where(RunRow.id == run_id).values(active_seconds=total))

    # ---- leases

    @whole
    async def requeue(self, run_id: str, reason: str) -> None:
        """Lets a run wait for a trainer, and ends every lease of it."""
        values = {"state": RunState.RUN_STATE_PENDING, "reason": reason, "lease_epoch": RunRow.lease_epoch + 1}
        async with self.engine.begin() as db:
            await db.execute(update(RunRow).where(RunRow.id == run_id).values(values))

    @whole
    async def open_lease(self, run_id: str, reason: str) -> int | None:
        """Begins a lease, which ends every one before it; returns its epoch, or None if the run takes no trainer."""
        leasable = (RunRow.id == run_id) & RunRow.state.in_(LEASABLE)
        values = {"state": RunState.RUN_STATE_STARTING, "reason": reason, "lease_epoch": RunRow.lease_epoch + 1}
        async with self.engine.begin() as db:
            if not (await db.execute(update(RunRow).where(leasable).values(values))).rowcount:
                return None
            return await db.scalar(select(RunRow.lease_epoch).where(RunRow.id == run_id))

    @whole
    async def check_lease(self, run_id: str, lease_epoch: int) -> None:
        """StaleLeaseError if this is not the epoch of the run's newest lease."""
        async with self.engine.begin() as db:
            await _check_lease(db, run_id, lease_epoch)

    # ---- versions

    async def versions(self, run_id: str, after: int = -1) -> list[Version]:
        """The committed versions whose number is greater than `after`, in order."""
        wanted = (VersionRow.run_id == run_id) & (VersionRow.number > after)
        query = select(VersionRow.__table__).where(wanted).order_by(VersionRow.number)
        async with self.engine.connect() as db:
            return [
                Version(
                    policy=policy_version(row.number, row.digest, row.policy),
                    num_samples=row.num_samples,
                    num_tokens=row.num_tokens,
                    metrics=row.metrics,
                    time_unix_ns=row.committed_ns,
                )
                for row in await db.execute(query)
            ]

    async def newest_version(self, run_id: str) -> PolicyVersion | None:
        """The newest committed version; None before the first."""
        query = select(VersionRow.number, VersionRow.digest, VersionRow.policy).where(VersionRow.run_id == run_id)
        async with self.engine.connect() as db:
            row = (await db.execute(query.order_by(VersionRow.number.desc()).limit(1))).one_or_none()
        return policy_version(*row) if row else None

    @whole
    async def commit_version(
        self, run_id: str, lease_epoch: int, version: Version, model_path: str, refused: Mapping[tuple[str, int], str]
    ) -> bool:
        """Records a version and marks the batch it was made from as trained; False if that was done before.

        `refused`: by group and index, why a sample of the batch could not be trained on. It is dead, and says nothing
        of its prompt.

        The newest version may be repeated with another digest, where a lost step was repeated on hardware that does not
        repeat itself to the bit: the newest digest is the one that is served.

        Raises:
            StaleLeaseError: the lease is over.
            StateError: it is neither the newest version nor the next, or of another policy than those before, or its
                batch is not settled.
            InvalidInputError: its policy's name is none.
        """
        number = version.policy.number
        async with self.engine.begin() as db:
            await _check_lease(db, run_id, lease_epoch)
            starting = (RunRow.id == run_id) & (RunRow.state == RunState.RUN_STATE_STARTING)
            await db.execute(update(RunRow).where(starting).values(state=RunState.RUN_STATE_RUNNING, reason=""))
            if not await _follows(db, run_id, version.policy):
                here = (VersionRow.run_id == run_id) & (VersionRow.number == number)
                await db.execute(update(VersionRow).where(here).values(digest=version.policy.digest))
                return False
            row = {
                "run_id": run_id,
                "policy": policy_name(version.policy),
                "number": number,
                "digest": version.policy.digest,
                "num_samples": version.num_samples,
                "num_tokens": version.num_tokens,
                "metrics": {name: value for name, value in version.metrics.items() if math.isfinite(value)},
                "committed_ns": version.time_unix_ns or time.time_ns(),
                "model_path": model_path,
            }
            await db.execute(insert(VersionRow).values(**row))
            batch = select(GroupRow.id).where(GroupRow.run_id == run_id, GroupRow.batch == number - 1)
            for (group_id, sample_index), reason in refused.items():
                one = (SampleRow.group_id == group_id) & (SampleRow.sample_index == sample_index)
                dead = update(SampleRow).where(
                    one, SampleRow.group_id.in_(batch), SampleRow.state == SampleState.SCORED
                )
                await db.execute(dead.values(state=SampleState.DEAD, reason=reason, value=None, correct=None))
                samples_counter.add(1, {"state": SampleState.DEAD})
            trained = update(SampleRow).where(SampleRow.group_id.in_(batch), SampleRow.state == SampleState.SCORED)
            trained_rows = await db.execute(trained.values(state=SampleState.TRAINED))
            if model_path:
                await db.execute(update(RunRow).where(RunRow.id == run_id).values(model_path=model_path))
            samples_counter.add(trained_rows.rowcount, {"state": SampleState.TRAINED})
            return True

    # ---- stages

    async def stage_steps(self, run_id: str) -> list[StageProgress]:
        """The steps that are kept of the run's stages, in order."""
        return await self._stage_steps(StageStepRow.run_id == run_id)

    async def newest_stage_steps(self, run_id: str) -> list[StageProgress]:
        """The newest step of each stage that has begun, in the recipe's order."""
        ours = StageStepRow.run_id == run_id
        newest = select(StageStepRow.stage, func.max(StageStepRow.step)).where(ours).group_by(StageStepRow.stage)
        return await self._stage_steps(ours & tuple_(StageStepRow.stage, StageStepRow.step).in_(newest))

    async def _stage_steps(self, wanted: ColumnElement[bool]) -> list[StageProgress]:
        query = select(StageStepRow.__table__).where(wanted).order_by(StageStepRow.stage, StageStepRow.step)
        async with self.engine.connect() as db:
            return [
                StageProgress(
                    index=row.stage,
                    name=row.name,
                    step=row.step,
                    num_steps=row.num_steps,
                    metrics=row.metrics,
                    time_unix_ns=row.time_ns,
                )
                for row in await db.execute(query)
            ]

    @whole
    async def record_stage_step(self, run_id: str, stage: StageProgress) -> None:
        """Keeps a step in place of those since the last one that stays; an older report than was heard changes nothing.

        A trainer that went on from its checkpoint takes steps again: those that it took before it was killed are gone.
        """
        ours = (StageStepRow.run_id == run_id) & (StageStepRow.stage == stage.index)
        first = first_of_part(stage.step, stage.num_steps)
        async with self.engine.begin() as db:
            if (await db.scalar(select(func.max(StageStepRow.time_ns)).where(ours)) or 0) >= stage.time_unix_ns:
                return
            await db.execute(delete(StageStepRow).where(ours, StageStepRow.step >= first))
            row = {
                "run_id": run_id,
                "stage": stage.index,
                "step": stage.step,
                "name": stage.name,
                "num_steps": stage.num_steps,
                "metrics": {name: value for name, value in stage.metrics.items() if math.isfinite(value)},
                "time_ns": stage.time_unix_ns,
            }
            await db.execute(insert(StageStepRow).values(**row))

    # ---- groups and samples

    @whole
    async def add_groups(self, groups: Sequence[Group]) -> None:
        """Writes groups and their samples before they are published."""
        if not groups:
            return
        samples = [
            {
                "group_id": group.id,
                "sample_index": index,
                "run_id": group.run_id,
                "iteration": group.iteration,
                "purpose": group.purpose,
                "state": SampleState.DISPATCHED,
            }
            for group in groups
            for index in range(group.num_samples)
        ]
        async with self.engine.begin() as db:
            await db.execute(insert(GroupRow), [vars(group) for group in groups])
            await db.execute(insert(SampleRow), samples)
        samples_counter.add(len(samples), {"state": SampleState.DISPATCHED})

    @whole
    async def mark_dispatched(self, traceparents: Mapping[str, str]) -> None:
        """Counts one more dispatch of each group, under a new trace."""
        if traceparents:
            statement = update(GroupRow.__table__).where(GroupRow.id == bindparam("group"))  # type: ignore[arg-type]
            statement = statement.values(num_dispatches=GroupRow.num_dispatches + 1, traceparent=bindparam("trace"))
            async with self.engine.begin() as db:
                await db.execute(statement, [{"group": key, "trace": value} for key, value in traceparents.items()])

    async def has_group(self, group_id: str) -> bool:
        """Tests whether a group was dispatched."""
        async with self.engine.connect() as db:
            return await db.scalar(select(GroupRow.id).where(GroupRow.id == group_id)) is not None

    async def num_groups(self, run_id: str) -> int:
        """Groups that were dispatched to be trained on."""
        query = select(func.count()).where(GroupRow.run_id == run_id, GroupRow.purpose == PURPOSE_TRAIN)
        async with self.engine.connect() as db:
            return await db.scalar(query) or 0

    async def num_groups_by_version(self, run_id: str) -> dict[int, int]:
        """Returns how many groups were dispatched to be trained on, by the version that they were dispatched at."""
        query = (
            select(GroupRow.iteration, func.count().label("size"))
            .where(GroupRow.run_id == run_id, GroupRow.purpose == PURPOSE_TRAIN)
            .group_by(GroupRow.iteration)
        )
        async with self.engine.connect() as db:
            return {row.iteration: row.size for row in await db.execute(query)}

    async def open_groups(self, run_id: str, state: SampleState) -> list[tuple[Group, list[Awaited]]]:
        """Groups with samples in a state, the oldest first, and those samples."""
        columns = (SampleRow.group_id, SampleRow.sample_index, SampleRow.round, SampleRow.ending)
        samples = select(*columns).where(SampleRow.run_id == run_id, SampleRow.state == state)
        open_ids = select(SampleRow.group_id).where(SampleRow.run_id == run_id, SampleRow.state == state)
        groups = select(GroupRow.__table__).where(GroupRow.id.in_(open_ids))
        found: dict[str, list[Awaited]] = {}
        async with self.engine.connect() as db:
            for row in await db.execute(samples.order_by(SampleRow.group_id, SampleRow.sample_index)):
                found.setdefault(row.group_id, []).append(Awaited(*row))
            rows = await db.execute(groups.order_by(GroupRow.iteration, GroupRow.mode, GroupRow.position))
            return [(Group(**row._mapping), found[row.id]) for row in rows if row.id in found]

    async def progress(self, run_id: str, iteration: int, due_version: int) -> Progress:
        """Returns what is under way; samples dispatched at `due_version` or before are those that the batch waits
        for."""
        awaited = SampleRow.state.in_(OPEN)
        by_age = (
            select(SampleRow.purpose, SampleRow.iteration, SampleRow.state, func.count())
            .where(SampleRow.run_id == run_id, awaited)
            .group_by(SampleRow.purpose, SampleRow.iteration, SampleRow.state)
        )
        num_open = select(func.count(SampleRow.group_id.distinct())).where(
            SampleRow.run_id == run_id, SampleRow.purpose == PURPOSE_TRAIN, awaited
        )
        num_unsettled = select(func.count()).where(
            GroupRow.run_id == run_id, GroupRow.purpose == PURPOSE_TRAIN, GroupRow.batch.is_(None)
        )
        async with self.engine.connect() as db:
            rows = (await db.execute(by_age)).all()
            num_complete = (await db.scalar(num_unsettled) or 0) - (await db.scalar(num_open) or 0)
        train = [(age, state, count) for purpose, age, state, count in rows if purpose == PURPOSE_TRAIN]
        return Progress(
            num_evaluating=sum(n for purpose, age, _, n in rows if purpose == PURPOSE_EVALUATE and age == iteration),
            num_running=sum(count for _, state, count in train if state == SampleState.DISPATCHED),
            num_partial=sum(count for _, state, count in train if state == SampleState.PARTIAL),
            num_due=sum(count for age, _, count in train if age <= due_version),
            num_complete=num_complete,
        )

    async def partial(self, group_id: str, sample_index: int) -> bytes | None:
        """The unfinished trajectory that was saved of a sample."""
        query = select(SampleRow.partial).where(SampleRow.group_id == group_id, SampleRow.sample_index == sample_index)
        async with self.engine.connect() as db:
            return await db.scalar(query)

    @whole
    async def record_partials(self, partials: Sequence[Partial]) -> set[tuple[str, int]]:
        """Saves unfinished samples that were awaited. Returns those that no group ever asked for.

        What is left of an earlier round is a duplicate of what was saved, and changes nothing.
        """
        keys = [(partial.group_id, partial.sample_index) for partial in partials]
        rows = [{f"new_{name}": value for name, value in vars(partial).items()} for partial in partials]
        statement = (
            update(SampleRow.__table__)  # type: ignore[arg-type]
            .where(*_awaited_in_round())
            .values(
                state=SampleState.PARTIAL,
                ending=bindparam("new_ending"),
                num_tokens=bindparam("new_num_tokens"),
                partial=bindparam("new_payload"),
            )
        )
        async with self.engine.begin() as db:
            known = await _known_samples(db, keys)
            await db.execute(statement, rows)
        samples_counter.add(len(partials), {"state": SampleState.PARTIAL})
        return set(keys) - known

    @whole
    async def mark_continued(self, samples: Sequence[Awaited]) -> None:
        """Unfinished samples are about to be sent out once more."""
        statement = (
            update(SampleRow.__table__)  # type: ignore[arg-type]
            .where(*_awaited_in_round(SampleState.PARTIAL))
            .values(state=SampleState.DISPATCHED, round=SampleRow.round + 1)
        )
        rows = [{"new_group_id": s.group_id, "new_sample_index": s.sample_index, "new_round": s.round} for s in samples]
        if rows:
            async with self.engine.begin() as db:
                await db.execute(statement, rows)

    @whole
    async def record_scores(self, scores: Sequence[Scored]) -> set[tuple[str, int]]:
        """Writes what came of samples that were still awaited. Returns those that no group ever asked for.

        A sample that came twice keeps what came first, and what comes of a round that is over comes too late.
        """
        keys = [(score.group_id, score.sample_index) for score in scores]
        async with self.engine.begin() as db:
            known = await _known_samples(db, keys)
            statement = (
                update(SampleRow.__table__)  # type: ignore[arg-type]
                .where(*_awaited_in_round())
                .values({name: bindparam(f"new_{name}") for name in _SCORED_COLUMNS} | {"partial": None})
            )
            rows = [
                {f"new_{name}": value for name, value in vars(score).items()}
                for score in scores
                if (score.group_id, score.sample_index) in known
            ]
            if rows:
                await db.execute(statement, rows)
        for state, count in Counter(score.state for score in scores).items():
            samples_counter.add(count, {"state": state})
        return set(keys) - known

    @whole
    async def mark_dead(self, samples: Iterable[tuple[str, int]], reason: str) -> None:
        """Gives up samples that were still awaited."""
        statement = (
            update(SampleRow.__table__)  # type: ignore[arg-type]
            .where(
                SampleRow.group_id == bindparam("group"),
                SampleRow.sample_index == bindparam("index"),
                # Not `in_`, which SQLAlchemy refuses in a statement for several rows.
                (SampleRow.state == SampleState.DISPATCHED) | (SampleRow.state == SampleState.PARTIAL),
            )
            .values(state=SampleState.DEAD, reason=reason)
        )
        rows = [{"group": group, "index": index} for group, index in samples]
        if rows:
            async with self.engine.begin() as db:
                await db.execute(statement, rows)

    @whole
    async def mark_group_dead(self, group_id: str, reason: str) -> None:
        """Gives up whatever of a group was still awaited."""
        statement = update(SampleRow).where(SampleRow.group_id == group_id, SampleRow.state == SampleState.DISPATCHED)
        async with self.engine.begin() as db:
            await db.execute(statement.values(state=SampleState.DEAD, reason=reason))

    @whole
    async def revive(self, samples: Sequence[tuple[str, int]]) -> int:
        """Awaits dead samples again whose batch is not settled; returns how many."""
        open_groups = select(GroupRow.id).where(GroupRow.batch.is_(None), GroupRow.purpose == PURPOSE_TRAIN)
        dead = (
            tuple_(SampleRow.group_id, SampleRow.sample_index).in_(list(samples)),
            SampleRow.state == SampleState.DEAD,
        )
        revived = update(SampleRow).where(*dead, SampleRow.group_id.in_(open_groups))
        async with self.engine.begin() as db:
            rows = await db.execute(revived.values(state=SampleState.DISPATCHED, reason=""))
            return int(rows.rowcount)

    async def samples_of(self, group_id: str) -> list[SampleId]:
        """The ids of a group's samples."""
        async with self.engine.connect() as db:
            indices = await db.scalars(select(SampleRow.sample_index).where(SampleRow.group_id == group_id))
            return [SampleId(group_id, index) for index in indices]

    async def complete_groups(self, run_id: str) -> list[tuple[Group, list[Graded]]]:
        """Groups in no batch yet of which nothing is awaited, the oldest first, with their scored samples."""
        awaited = SampleRow.state.in_(OPEN)
        open_ids = select(SampleRow.group_id).where(SampleRow.run_id == run_id, awaited)
        complete = (
            select(GroupRow.__table__)
            .where(GroupRow.run_id == run_id, GroupRow.purpose == PURPOSE_TRAIN, GroupRow.batch.is_(None))
            .where(GroupRow.id.not_in(open_ids))
            .order_by(GroupRow.iteration, GroupRow.position, GroupRow.id)
        )
        async with self.engine.connect() as db:
            groups = [Group(**row._mapping) for row in await db.execute(complete)]
            ids = complete.with_only_columns(GroupRow.id).order_by(None)  # there may be more than a statement takes
            scored = SampleRow.group_id.in_(ids), SampleRow.state == SampleState.SCORED
            graded: dict[str, list[Graded]] = {}
            columns = (SampleRow.value, SampleRow.correct, SampleRow.num_tokens, SampleRow.ending)
            for group_id, value, correct, num_tokens, ending in await db.execute(
                select(SampleRow.group_id, *columns).where(*scored)
            ):
                assert value is not None  # a scored sample has its score
                graded.setdefault(group_id, []).append(Graded(value, bool(correct), num_tokens or 0, ending or 0))
        return [(group, graded.get(group.id, [])) for group in groups]

    @whole
    async def close_batch(self, run_id: str, iteration: int, left_out: Mapping[str, SampleState | None]) -> None:
        """Settles what is trained on at a version: these groups, but for those that have a state to be left out in."""
        here = (VersionRow.run_id == run_id) & (VersionRow.number == iteration)
        async with self.engine.begin() as db:
            await db.execute(update(GroupRow).where(GroupRow.id.in_(list(left_out))).values(batch=iteration))
            for state in (SampleState.FILTERED, SampleState.STALE):
                ids = [group_id for group_id, why in left_out.items() if why == state]
                scored = update(SampleRow).where(SampleRow.group_id.in_(ids), SampleRow.state == SampleState.SCORED)
                rows = await db.execute(scored.values(state=state))
                samples_counter.add(rows.rowcount, {"state": state})
            await db.execute(update(VersionRow).where(here).values(closed=True))

    async def is_closed(self, run_id: str, iteration: int) -> bool:
        """Tests whether the batch of this version is settled."""
        query = select(VersionRow.closed).where(VersionRow.run_id == run_id, VersionRow.number == iteration)
        async with self.engine.connect() as db:
            return bool(await db.scalar(query))

    async def batch(self, run_id: str, iteration: int) -> AsyncIterator[tuple[str, str, list[bytes]]]:
        """A settled batch group by group: id, trace, payloads, in order; the same before and after it was trained on.

        Long trajectories make large groups: they are read as they are needed, short ones many at a time.
        """
        used = SampleRow.state.in_([SampleState.SCORED, SampleState.TRAINED])
        groups = (
            select(GroupRow.id, GroupRow.traceparent, func.sum(SampleRow.num_tokens))
            .join(SampleRow, SampleRow.group_id == GroupRow.id)
            .where(GroupRow.run_id == run_id, GroupRow.batch == iteration, used)
            .group_by(GroupRow.id)
            .order_by(GroupRow.iteration, GroupRow.position, GroupRow.id)
        )
        async with self.engine.connect() as db:
            found = (await db.execute(groups)).all()
        sizes = [num_tokens or 0 for _, _, num_tokens in found]
        for part in _parts(found, sizes, PART_TOKENS):  # no connection is held while the caller is slow
            ids = [row.id for row in part]
            samples = select(SampleRow.group_id, SampleRow.payload).where(SampleRow.group_id.in_(ids), used)
            payloads: dict[str, list[bytes]] = {group_id: [] for group_id in ids}
            async with self.engine.connect() as db:
                for group_id, payload in await db.execute(samples.order_by(SampleRow.sample_index)):
                    assert payload is not None  # a scored sample has its trajectory
                    payloads[group_id].append(payload)
            for row in part:
                yield row.id, row.traceparent, payloads[row.id]

    async def prompts_of_batch(self, run_id: str, iteration: int) -> dict[str, int]:
        """The prompt's index of each group of a settled batch, by the group's id."""
        query = select(GroupRow.id, GroupRow.prompt_index).where(GroupRow.run_id == run_id, GroupRow.batch == iteration)
        async with self.engine.connect() as db:
            return {row.id: row.prompt_index for row in await db.execute(query)}

    async def first_right_lengths(
        self, run_id: str, prompt_indices: Collection[int], until: int
    ) -> dict[int, list[int]]:
        """Lengths, in tokens, of right samples in the first settled batch in which a prompt had any, by its index.

        Args:
            until: the last batch that is looked at. A sample that the trainer refused later counts as it did before.
        """
        is_right = (
            (GroupRow.run_id == run_id)
            & (GroupRow.purpose == PURPOSE_TRAIN)
            & (GroupRow.batch <= until)
            & GroupRow.prompt_index.in_(list(prompt_indices))
            & SampleRow.correct.is_(True)
        )
        first = (
            select(GroupRow.prompt_index, func.min(GroupRow.batch).label("batch"))
            .join(SampleRow, SampleRow.group_id == GroupRow.id)
            .where(is_right)
            .group_by(GroupRow.prompt_index)
            .subquery()
        )
        is_first = (first.c.prompt_index == GroupRow.prompt_index) & (first.c.batch == GroupRow.batch)
        query = (
            select(GroupRow.prompt_index, SampleRow.num_tokens)
            .join(SampleRow, SampleRow.group_id == GroupRow.id)
            .join(first, is_first)
            .where(is_right)
        )
        lengths: dict[int, list[int]] = {}
        async with self.engine.connect() as db:
            for index, num_tokens in await db.execute(query):
                lengths.setdefault(index, []).append(num_tokens or 0)
        return lengths

    async def lengths(self, run_id: str) -> dict[str, Counter[int]]:
        """Returns how many training samples of each length, in tokens, were "generated" so far, and how many
        "trained" on."""
        query = (
            select(SampleRow.num_tokens, SampleRow.state, func.count())
            .where(SampleRow.run_id == run_id, SampleRow.purpose == PURPOSE_TRAIN, SampleRow.payload.is_not(None))
            .group_by(SampleRow.num_tokens, SampleRow.state)
        )
        lengths: dict[str, Counter[int]] = {"generated": Counter(), "trained": Counter()}
        async with self.engine.connect() as db:
            for num_tokens, state, count in await db.execute(query):
                assert num_tokens is not None  # what has ended was counted
                lengths["generated"][num_tokens] += count
                if state == SampleState.TRAINED:
                    lengths["trained"][num_tokens] += count
        return lengths

    async def death_reasons(self, run_id: str) -> list[str]:
        """Why samples of a run were given up, the most frequent reason first."""
        query = (
            select(SampleRow.reason)
            .where(SampleRow.run_id == run_id, SampleRow.state == SampleState.DEAD)
            .group_by(SampleRow.reason)
            .order_by(func.count().desc())
        )
        async with self.engine.connect() as db:
            return list(await db.scalars(query))

    async def success_rates(self, run_id: str) -> dict[int, float]:
        """Share of right samples of each prompt tried so far, by the prompt's index (k1.5 §2.3.4)."""
        query = (
            select(GroupRow.prompt_index, func.sum(cast(SampleRow.correct, Integer)), func.count())
            .join(SampleRow, SampleRow.group_id == GroupRow.id)
            .where(GroupRow.run_id == run_id, GroupRow.purpose == PURPOSE_TRAIN, SampleRow.correct.is_not(None))
            .group_by(GroupRow.prompt_index)
        )
        async with self.engine.connect() as db:
            return {index: int(right) / total for index, right, total in await db.execute(query)}

    async def dead_groups(self, run_id: str) -> dict[int, int]:
        """Returns how many training groups of a prompt were given up whole, by its index; only of prompts no sample
        of which ever came to anything else.
        """
        num_dead = func.sum(cast(SampleRow.state == SampleState.DEAD, Integer))
        num_useful = func.sum(cast(SampleRow.state.not_in([SampleState.DEAD, *OPEN]), Integer))
        is_training = (SampleRow.run_id == run_id) & (SampleRow.purpose == PURPOSE_TRAIN)
        touched = select(SampleRow.group_id).where(is_training, SampleRow.state == SampleState.DEAD).distinct()
        indices = select(GroupRow.prompt_index).where(GroupRow.id.in_(touched))
        query = (
            select(GroupRow.prompt_index, num_dead, num_useful, func.count())
            .join(SampleRow, SampleRow.group_id == GroupRow.id)
            .where(GroupRow.run_id == run_id, is_training, GroupRow.prompt_index.in_(indices))
            .group_by(GroupRow.prompt_index, GroupRow.id)
        )
        dead: Counter[int] = Counter()
        useful: set[int] = set()
        async with self.engine.connect() as db:
            for index, group_dead, group_useful, num_samples in await db.execute(query):
                dead[index] += int(group_dead) == num_samples
                if group_useful:
                    useful.add(index)
        return {index: count for index, count in dead.items() if count and index not in useful}

    async def samples(
        self, run_id: str, iteration: int, purpose: int, mode: str, limit: int, offset: int = 0
    ) -> tuple[list[bytes], int]:
        """Payloads of an iteration's scored samples in order of dispatch, and how many there are in all.

        Fewer than `limit`, but one at least, where they would be more than PAGE_BYTES.
        """
        answered = (
            select(GroupRow.mode, GroupRow.position, SampleRow.sample_index, SampleRow.payload)
            .join(GroupRow, GroupRow.id == SampleRow.group_id)
            .where(
                *_samples_of(run_id, iteration, purpose),
                SampleRow.payload.is_not(None),
                *([GroupRow.mode == mode] if mode else []),
            )
        )
        ordered = answered.order_by(GroupRow.mode, GroupRow.position, SampleRow.sample_index).offset(offset)
        sizes = ordered.with_only_columns(func.length(SampleRow.payload), maintain_column_froms=True).limit(limit)
        async with self.engine.connect() as db:
            num_samples = await db.scalar(answered.with_only_columns(func.count(), maintain_column_froms=True))
            totals = accumulate(await db.scalars(sizes))
            num_fitting = sum(1 for total in totals if total <= PAGE_BYTES)
            page = ordered.limit(max(1, num_fitting))
            return [row.payload for row in await db.execute(page)], num_samples or 0

    # ---- evaluations

    @whole
    async def evaluate(self, run_id: str, policy: PolicyVersion) -> None:
        """Sums up the held-out samples of a version, mode by mode. Samples that died are no problems answered."""
        query = (
            select(
                GroupRow.mode,
                func.count(),
                func.sum(cast(SampleRow.correct, Integer)),
                func.avg(SampleRow.num_tokens),
            )
            .join(SampleRow, SampleRow.group_id == GroupRow.id)
            .where(*_samples_of(run_id, policy.number, PURPOSE_EVALUATE), SampleRow.state == SampleState.EVALUATED)
            .group_by(GroupRow.mode)
        )
        async with self.engine.begin() as db:
            measured = set(
                await db.scalars(
                    select(EvaluationRow.mode).where(
                        EvaluationRow.run_id == run_id, EvaluationRow.version == policy.number
                    )
                )
            )
            for mode, num_problems, num_correct, mean_tokens in (await db.execute(query)).all():
                if mode not in measured:
                    row = {"run_id": run_id, "version": policy.number, "mode": mode, "digest": policy.digest}
                    row |= {"num_problems": num_problems, "num_correct": int(num_correct)}
                    await db.execute(insert(EvaluationRow).values(**row, mean_tokens=float(mean_tokens)))

    async def evaluations(self, run_id: str) -> list[EvaluationRow]:
        """All evaluations of a run, by version and mode."""
        query = select(EvaluationRow.__table__).where(EvaluationRow.run_id == run_id)
        async with self.engine.connect() as db:
            rows = await db.execute(query.order_by(EvaluationRow.version, EvaluationRow.mode))
            return [EvaluationRow(**row._mapping) for row in rows]

    # ---- the ledger

    async def ledger(self, run_id: str) -> Ledger:
        """The ledger of a run, added up from groups, samples and versions."""
        by_state = (
            select(SampleRow.purpose, SampleRow.state, func.count())
            .where(SampleRow.run_id == run_id)
            .group_by(SampleRow.purpose, SampleRow.state)
        )
        by_group = (
            select(GroupRow.purpose, func.sum(GroupRow.num_samples))
            .where(GroupRow.run_id == run_id)
            .group_by(GroupRow.purpose)
        )
        by_version = select(func.coalesce(func.sum(VersionRow.num_samples), 0)).where(VersionRow.run_id == run_id)
        states: dict[int, dict[str, int]] = {PURPOSE_TRAIN: {}, PURPOSE_EVALUATE: {}}
        async with self.engine.connect() as db:
            for purpose, state, count in await db.execute(by_state):
                states[purpose][state] = count
            dispatched = {purpose: int(count) for purpose, count in await db.execute(by_group)}
            num_trained = int(await db.scalar(by_version) or 0)
            run_state = await db.scalar(select(RunRow.state).where(RunRow.id == run_id))
        return balance(
            dispatched.get(PURPOSE_TRAIN, 0),
            states[PURPOSE_TRAIN],
            num_trained,
            dispatched.get(PURPOSE_EVALUATE, 0),
            states[PURPOSE_EVALUATE],
            ended=run_state == RunState.RUN_STATE_FINISHED,
        )

    async def ledger_lines(self, run_id: str, after_group: str = "") -> list[LedgerLine]:
        """Lists the samples of the next LEDGER_PAGE groups behind a group, in order of group and index."""
        groups = (
            select(GroupRow)
            .where(GroupRow.run_id == run_id, GroupRow.id > after_group)
            .order_by(GroupRow.id)
            .limit(LEDGER_PAGE)
            .subquery()
        )
        columns = (groups.c.num_samples, groups.c.batch, SampleRow.purpose, SampleRow.iteration, SampleRow.state)
        lines = (
            select(SampleRow.group_id, SampleRow.sample_index, *columns, SampleRow.reason)
            .join(groups, groups.c.id == SampleRow.group_id)
            .order_by(SampleRow.group_id, SampleRow.sample_index)
        )
        async with self.engine.connect() as db:
            return [LedgerLine(**row) for row in (await db.execute(lines)).mappings()]


_SCORED_COLUMNS = ("state", "payload", "num_tokens", "ending", "value", "correct", "reason")


def _samples_of(run_id: str, iteration: int, purpose: int = PURPOSE_TRAIN) -> tuple[Any, ...]:
    return (SampleRow.run_id == run_id, SampleRow.iteration == iteration, SampleRow.purpose == purpose)


def _parts(rows: Sequence[R], sizes: Iterable[int], size: int) -> Iterator[list[R]]:
    """Cuts rows into parts whose sizes sum up to about `size`."""
    ends = accumulate(sizes)
    for _, part in groupby(zip(rows, ends, strict=True), key=lambda pair: pair[1] // size):
        yield [row for row, _ in part]


def _awaited_in_round(state: SampleState = SampleState.DISPATCHED) -> tuple[Any, ...]:
    return (
        SampleRow.group_id == bindparam("new_group_id"),
        SampleRow.sample_index == bindparam("new_sample_index"),
        SampleRow.round == bindparam("new_round"),
        SampleRow.state == state,
    )


async def _check_lease(db: AsyncConnection, run_id: str, lease_epoch: int) -> None:
    """StaleLeaseError if a newer lease began or the run has ended. Holds the run's row until the transaction ends."""
    # An update and no select: it takes the row's lock on every database, so that no lease begins before the commit.
    newest = update(RunRow).where(RunRow.id == run_id, RunRow.lease_epoch == min(lease_epoch, MAX_INTEGER))
    if not lease_epoch or not (await db.execute(newest.values(lease_epoch=RunRow.lease_epoch))).rowcount:
        epoch = await db.scalar(select(RunRow.lease_epoch).where(RunRow.id == run_id))
        raise StaleLeaseError(
            f"lease {lease_epoch} of {run_id} is over, the newest is {epoch}: another trainer took the run over, "
            "or it has ended; acquire a run again"
        )


async def _follows(db: AsyncConnection, run_id: str, policy: PolicyVersion) -> bool:
    """Tests whether a version is the next one, and not the newest repeated. StateError if it is neither, or of
    another policy than those before, or its batch is not settled."""
    number, name = policy.number, policy_name(policy)
    versions = select(VersionRow.number, VersionRow.closed, VersionRow.policy).where(VersionRow.run_id == run_id)
    newest = (await db.execute(versions.order_by(VersionRow.number.desc()).limit(1))).one_or_none()
    if newest is not None and name != newest.policy:
        raise StateError(f"{run_id} trains the policy {newest.policy!r}: a version of {name!r} cannot follow")
    if newest is not None and number == newest.number:
        return False
    expected = 0 if newest is None else newest.number + 1
    if number != expected:
        raise StateError(f"version {number} of {run_id} cannot follow: the next one is {expected}")
    if newest is not None and not newest.closed:
        raise StateError(f"version {number} of {run_id} cannot follow: the batch it is made from is not settled yet")
    return True


async def _known_samples(db: AsyncConnection, keys: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
    columns = (SampleRow.group_id, SampleRow.sample_index)
    rows = await db.execute(select(*columns).where(tuple_(*columns).in_(list(keys))))
    return {(group_id, index) for group_id, index in rows}


def _tune_sqlite(connection: Any, _record: object) -> None:
    """Readers beside the writer (WAL), and a writer that waits rather than fails."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
