"""Every question to the database and every change of it: one method, one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Integer, bindparam, cast, event, func, insert, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from perilune.api.master.v1.master_pb2 import Ledger, RunState, Version
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_EVALUATE, PURPOSE_TRAIN, PolicyVersion
from perilune.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StateError, UnavailableError
from perilune.telemetry import meter
from services.master.ledger import balance
from services.master.tables import EvaluationRow, GroupRow, RunRow, SampleRow, SampleState, VersionRow

# The ledger's movements: how many samples came into each state.
samples_counter = meter.create_counter("perilune.master.samples", "{sample}", "Samples that came into a state.")

MIGRATIONS = Path(__file__).parent / "migrations"
ENDED = (RunState.RUN_STATE_FINISHED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_STOPPED)


@dataclass(frozen=True)
class Group:
    """A group as the database has it, without its prompt."""

    id: str
    run_id: str
    iteration: int
    purpose: int
    mode: str
    position: int
    prompt_index: int
    num_samples: int
    num_dispatches: int = 0
    traceparent: str = ""


@dataclass(frozen=True)
class Scored:
    """What a scored trajectory changes."""

    group_id: str
    sample_index: int
    state: SampleState  # SCORED, EVALUATED, or DEAD if the grader could not say
    payload: bytes
    num_tokens: int
    value: float | None = None
    correct: bool | None = None
    reason: str = ""


P = ParamSpec("P")
R = TypeVar("R")


def _whole(
    change: Callable[Concatenate[Store, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Store, P], Coroutine[Any, Any, R]]:
    """Lets a change end even if whoever asked for it is cancelled.

    A transaction that is torn in the middle can keep SQLite's only write lock until its connection is collected. And
    whoever finds that lock taken sleeps for up to 100 ms at a time, so that our own writers queue here.
    """

    async def in_turn(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> R:
        async with store.turn:
            return await change(store, *args, **kwargs)

    @functools.wraps(change)
    async def to_its_end(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> R:
        task = asyncio.create_task(in_turn(store, *args, **kwargs))
        store.changes.add(task)
        task.add_done_callback(store.changes.discard)
        return await asyncio.shield(task)

    return to_its_end


class Store:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.changes: set[asyncio.Task[Any]] = set()  # under way
        self.turn = asyncio.Semaphore(1 if engine.dialect.name == "sqlite" else 16)

    @staticmethod
    @contextlib.asynccontextmanager
    async def open(url: str, *, migrate: bool = True) -> AsyncIterator[Store]:
        """Opens the database and brings its schema up to date.

        InvalidInputError for a URL that is none; UnavailableError if the database does not answer.
        """
        try:
            engine = create_async_engine(url)
        except (SQLAlchemyError, ModuleNotFoundError, ValueError) as error:
            raise InvalidInputError(f"PERILUNE_DATABASE_URL {url!r} cannot be used: {error}") from error
        if engine.dialect.name == "sqlite":
            event.listen(engine.sync_engine, "connect", _tune_sqlite)
        try:
            if migrate:
                async with engine.begin() as connection:
                    await connection.run_sync(_upgrade)
            store = Store(engine)
            try:
                yield store
            finally:
                await asyncio.gather(*store.changes, return_exceptions=True)
        except (SQLAlchemyError, ConnectionError) as error:
            raise UnavailableError(f"the database {engine.url} failed: {error}") from error
        finally:
            await engine.dispose()

    # ---- runs

    @_whole
    async def add_run(self, run_id: str, recipe: str) -> bool:
        """Adds a run that waits for a trainer; False if it exists with the same recipe already."""
        async with self._engine.begin() as db:
            existing = await db.scalar(select(RunRow.recipe).where(RunRow.id == run_id))
            if existing is None:
                values = {"id": run_id, "state": RunState.RUN_STATE_PENDING, "recipe": recipe}
                await db.execute(insert(RunRow).values(**values, submitted_ns=time.time_ns()))
            elif existing != recipe:
                raise AlreadyExistsError(f"a run {run_id!r} exists with another recipe; choose another name")
            return existing is None

    async def run(self, run_id: str) -> RunRow:
        async with self._engine.connect() as db:
            row = (await db.execute(select(RunRow.__table__).where(RunRow.id == run_id))).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no run {run_id!r}; `perilune run list` shows those there are")
        return RunRow(**row._mapping)

    async def runs(self) -> list[RunRow]:
        async with self._engine.connect() as db:
            rows = await db.execute(select(RunRow.__table__).order_by(RunRow.submitted_ns.desc()))
            return [RunRow(**row._mapping) for row in rows]

    @_whole
    async def set_state(self, run_id: str, state: RunState.ValueType, reason: str = "") -> None:
        async with self._engine.begin() as db:
            await db.execute(update(RunRow).where(RunRow.id == run_id).values(state=state, reason=reason))

    @_whole
    async def add_active_seconds(self, run_id: str, seconds: float) -> None:
        async with self._engine.begin() as db:
            total = RunRow.active_seconds + seconds
            await db.execute(update(RunRow).where(RunRow.id == run_id).values(active_seconds=total))

    # ---- versions

    async def versions(self, run_id: str) -> list[Version]:
        query = select(VersionRow.__table__).where(VersionRow.run_id == run_id).order_by(VersionRow.number)
        async with self._engine.connect() as db:
            return [
                Version(
                    policy=PolicyVersion(number=row.number, digest=row.digest),
                    num_samples=row.num_samples,
                    num_tokens=row.num_tokens,
                    metrics=row.metrics,
                    time_unix_ns=row.committed_ns,
                )
                for row in await db.execute(query)
            ]

    async def newest_version(self, run_id: str) -> PolicyVersion | None:
        query = select(VersionRow.number, VersionRow.digest).where(VersionRow.run_id == run_id)
        async with self._engine.connect() as db:
            row = (await db.execute(query.order_by(VersionRow.number.desc()).limit(1))).one_or_none()
        return PolicyVersion(number=row.number, digest=row.digest) if row else None

    @_whole
    async def commit_version(self, run_id: str, version: Version, model_path: str) -> bool:
        """Records a version and marks the batch it was made from as trained; False if that was done before.

        A repeated commit may bring another digest, where a lost step was repeated on hardware that does not repeat
        itself to the bit: the newest digest is the one that is served.
        """
        number = version.policy.number
        async with self._engine.begin() as db:
            newest = await db.scalar(select(func.max(VersionRow.number)).where(VersionRow.run_id == run_id))
            if newest is not None and number <= newest:
                here = (VersionRow.run_id == run_id) & (VersionRow.number == number)
                await db.execute(update(VersionRow).where(here).values(digest=version.policy.digest))
                return False
            expected = 0 if newest is None else newest + 1
            if number != expected:
                raise StateError(f"version {number} of {run_id} cannot follow: the next one is {expected}")
            row = {
                "run_id": run_id,
                "number": number,
                "digest": version.policy.digest,
                "num_samples": version.num_samples,
                "num_tokens": version.num_tokens,
                "metrics": dict(version.metrics),
                "committed_ns": version.time_unix_ns or time.time_ns(),
                "model_path": model_path,
            }
            await db.execute(insert(VersionRow).values(**row))
            trained = update(SampleRow).where(*_samples_of(run_id, number - 1), SampleRow.state == SampleState.SCORED)
            trained_rows = await db.execute(trained.values(state=SampleState.TRAINED))
            if model_path:
                await db.execute(update(RunRow).where(RunRow.id == run_id).values(model_path=model_path))
            samples_counter.add(trained_rows.rowcount, {"state": SampleState.TRAINED})
            return True

    # ---- groups and samples

    @_whole
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
        async with self._engine.begin() as db:
            await db.execute(insert(GroupRow), [vars(group) for group in groups])
            await db.execute(insert(SampleRow), samples)
        samples_counter.add(len(samples), {"state": SampleState.DISPATCHED})

    async def groups(self, run_id: str, iteration: int, purpose: int) -> list[Group]:
        query = (
            select(GroupRow.__table__)
            .where(GroupRow.run_id == run_id, GroupRow.iteration == iteration, GroupRow.purpose == purpose)
            .order_by(GroupRow.mode, GroupRow.position)
        )
        async with self._engine.connect() as db:
            return [Group(**row._mapping) for row in await db.execute(query)]

    @_whole
    async def mark_dispatched(self, traceparents: Mapping[str, str]) -> None:
        """Counts one more dispatch of each group, under a new trace."""
        if traceparents:
            statement = update(GroupRow.__table__).where(GroupRow.id == bindparam("group"))  # type: ignore[arg-type]
            statement = statement.values(num_dispatches=GroupRow.num_dispatches + 1, traceparent=bindparam("trace"))
            async with self._engine.begin() as db:
                await db.execute(statement, [{"group": key, "trace": value} for key, value in traceparents.items()])

    async def missing_samples(self, run_id: str, iteration: int) -> dict[str, list[int]]:
        """Samples of an iteration that nothing has come of yet, by group."""
        query = (
            select(SampleRow.group_id, SampleRow.sample_index)
            .where(
                SampleRow.run_id == run_id,
                SampleRow.iteration == iteration,
                SampleRow.state == SampleState.DISPATCHED,
            )
            .order_by(SampleRow.group_id, SampleRow.sample_index)
        )
        missing: dict[str, list[int]] = {}
        async with self._engine.connect() as db:
            for group_id, index in await db.execute(query):
                missing.setdefault(group_id, []).append(index)
        return missing

    async def num_missing(self, run_id: str, iteration: int) -> int:
        query = select(func.count()).where(
            SampleRow.run_id == run_id, SampleRow.iteration == iteration, SampleRow.state == SampleState.DISPATCHED
        )
        async with self._engine.connect() as db:
            return await db.scalar(query) or 0

    @_whole
    async def record_scores(self, scores: Sequence[Scored]) -> set[tuple[str, int]]:
        """Writes what came of samples that were still awaited. Returns those that no group ever asked for.

        A sample that came twice keeps what came first.
        """
        keys = [(score.group_id, score.sample_index) for score in scores]
        async with self._engine.begin() as db:
            known = await _known_samples(db, keys)
            statement = (
                update(SampleRow.__table__)  # type: ignore[arg-type]
                .where(
                    SampleRow.group_id == bindparam("group"),
                    SampleRow.sample_index == bindparam("index"),
                    SampleRow.state == SampleState.DISPATCHED,
                )
                .values({name: bindparam(f"new_{name}") for name in _SCORED_COLUMNS})
            )
            rows = [
                {"group": score.group_id, "index": score.sample_index}
                | {f"new_{name}": getattr(score, name) for name in _SCORED_COLUMNS}
                for score in scores
                if (score.group_id, score.sample_index) in known
            ]
            if rows:
                await db.execute(statement, rows)
        for state, count in Counter(score.state for score in scores).items():
            samples_counter.add(count, {"state": state})
        return set(keys) - known

    @_whole
    async def mark_dead(self, samples: Iterable[tuple[str, int]], reason: str) -> None:
        """Gives up samples that were still awaited."""
        statement = (
            update(SampleRow.__table__)  # type: ignore[arg-type]
            .where(
                SampleRow.group_id == bindparam("group"),
                SampleRow.sample_index == bindparam("index"),
                SampleRow.state == SampleState.DISPATCHED,
            )
            .values(state=SampleState.DEAD, reason=reason)
        )
        rows = [{"group": group, "index": index} for group, index in samples]
        if rows:
            async with self._engine.begin() as db:
                await db.execute(statement, rows)

    @_whole
    async def mark_group_dead(self, group_id: str, reason: str) -> None:
        """Gives up whatever of a group was still awaited."""
        statement = update(SampleRow).where(SampleRow.group_id == group_id, SampleRow.state == SampleState.DISPATCHED)
        async with self._engine.begin() as db:
            await db.execute(statement.values(state=SampleState.DEAD, reason=reason))

    @_whole
    async def mark_filtered(self, group_ids: Iterable[str]) -> None:
        """Leaves the scored samples of these groups out of the loss."""
        statement = update(SampleRow).where(
            SampleRow.group_id.in_(list(group_ids)), SampleRow.state == SampleState.SCORED
        )
        async with self._engine.begin() as db:
            rows = await db.execute(statement.values(state=SampleState.FILTERED))
        samples_counter.add(rows.rowcount, {"state": SampleState.FILTERED})

    async def scored_values(self, run_id: str, iteration: int) -> dict[str, list[float]]:
        """The scores of an iteration's training samples that wait to be trained, by group."""
        query = select(SampleRow.group_id, SampleRow.value).where(
            *_samples_of(run_id, iteration), SampleRow.state == SampleState.SCORED
        )
        values: dict[str, list[float]] = {}
        async with self._engine.connect() as db:
            for group_id, value in await db.execute(query):
                assert value is not None  # a scored sample has its score
                values.setdefault(group_id, []).append(value)
        return values

    async def batch(self, run_id: str, iteration: int) -> dict[str, list[bytes]]:
        """The payloads of a closed iteration, by group, in order; the same before and after it was trained on."""
        query = (
            select(SampleRow.group_id, SampleRow.payload)
            .join(GroupRow, GroupRow.id == SampleRow.group_id)
            .where(*_samples_of(run_id, iteration), SampleRow.state.in_([SampleState.SCORED, SampleState.TRAINED]))
            .order_by(GroupRow.position, SampleRow.sample_index)
        )
        payloads: dict[str, list[bytes]] = {}
        async with self._engine.connect() as db:
            for group_id, payload in await db.execute(query):
                assert payload is not None
                payloads.setdefault(group_id, []).append(payload)
        return payloads

    async def death_reasons(self, run_id: str, iteration: int) -> list[str]:
        """Why samples of an iteration were given up, the most frequent reason first."""
        query = (
            select(SampleRow.reason)
            .where(SampleRow.run_id == run_id, SampleRow.iteration == iteration, SampleRow.state == SampleState.DEAD)
            .group_by(SampleRow.reason)
            .order_by(func.count().desc())
        )
        async with self._engine.connect() as db:
            return list(await db.scalars(query))

    async def success_rates(self, run_id: str) -> dict[int, float]:
        """Share of right samples of each prompt tried so far, by the prompt's index (k1.5 §2.3.4)."""
        query = (
            select(GroupRow.prompt_index, func.sum(cast(SampleRow.correct, Integer)), func.count())
            .join(SampleRow, SampleRow.group_id == GroupRow.id)
            .where(GroupRow.run_id == run_id, GroupRow.purpose == PURPOSE_TRAIN, SampleRow.correct.is_not(None))
            .group_by(GroupRow.prompt_index)
        )
        async with self._engine.connect() as db:
            return {index: int(right) / total for index, right, total in await db.execute(query)}

    async def samples(self, run_id: str, iteration: int, purpose: int, mode: str, limit: int) -> list[bytes]:
        query = (
            select(SampleRow.payload)
            .join(GroupRow, GroupRow.id == SampleRow.group_id)
            .where(
                SampleRow.run_id == run_id,
                SampleRow.iteration == iteration,
                SampleRow.purpose == purpose,
                SampleRow.payload.is_not(None),
                *([GroupRow.mode == mode] if mode else []),
            )
            .order_by(GroupRow.mode, GroupRow.position, SampleRow.sample_index)
            .limit(limit)
        )
        async with self._engine.connect() as db:
            return [payload for payload in await db.scalars(query) if payload is not None]

    # ---- evaluations

    @_whole
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
        async with self._engine.begin() as db:
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
        query = select(EvaluationRow.__table__).where(EvaluationRow.run_id == run_id)
        async with self._engine.connect() as db:
            rows = await db.execute(query.order_by(EvaluationRow.version, EvaluationRow.mode))
            return [EvaluationRow(**row._mapping) for row in rows]

    # ---- the ledger

    async def ledger(self, run_id: str) -> Ledger:
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
        async with self._engine.connect() as db:
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


_SCORED_COLUMNS = ("state", "payload", "num_tokens", "value", "correct", "reason")


def _samples_of(run_id: str, iteration: int, purpose: int = PURPOSE_TRAIN) -> tuple[Any, ...]:
    return (SampleRow.run_id == run_id, SampleRow.iteration == iteration, SampleRow.purpose == purpose)


async def _known_samples(db: AsyncConnection, keys: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
    columns = (SampleRow.group_id, SampleRow.sample_index)
    rows = await db.execute(select(*columns).where(tuple_(*columns).in_(list(keys))))
    return {(group_id, index) for group_id, index in rows}


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _tune_sqlite(connection: Any, _record: object) -> None:
    """Readers beside the writer (WAL), and a writer that waits rather than fails."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
