"""Evaluations by tasks in the database, and their samples: one method, one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, tuple_

from perilune.api.master.v1.master_pb2 import TaskEvaluation, TaskSample
from perilune.errors import NotFoundError
from services.master.store import Store, whole
from services.master.tables import TaskEvaluationRow, TaskSampleRow

MAX_EVALUATIONS = 1000  # in one list, the newest


class EvaluationStore:
    """The part of the database that evaluations by tasks are in."""

    def __init__(self, store: Store) -> None:
        self._engine, self._store = store.engine, store
        self.turn, self.changes = store.turn, store.changes

    @whole
    async def record(self, evaluation: TaskEvaluation) -> None:
        """Keeps an evaluation in place of what its id had; its samples stay. NotFoundError: there is no such run."""
        if evaluation.run_id:
            await self._store.run(evaluation.run_id)
        row = _row_of(evaluation)
        async with self._engine.begin() as db:
            found = select(TaskEvaluationRow.id).where(TaskEvaluationRow.id == evaluation.id)
            if await db.scalar(found) is None:
                await db.execute(insert(TaskEvaluationRow).values(row))
            else:
                table = TaskEvaluationRow.__table__
                await db.execute(table.update().where(TaskEvaluationRow.id == evaluation.id).values(row))  # type: ignore[attr-defined]

    @whole
    async def record_samples(self, evaluation_id: str, samples: Sequence[TaskSample]) -> None:
        """Keeps samples in place of those at their places. NotFoundError: there is no such evaluation."""
        await self.evaluation(evaluation_id)
        rows = {(sample.problem, sample.number): _sample_row(evaluation_id, sample) for sample in samples}
        if not rows:
            return
        places = tuple_(TaskSampleRow.problem, TaskSampleRow.number).in_(list(rows))
        async with self._engine.begin() as db:
            await db.execute(delete(TaskSampleRow).where(TaskSampleRow.evaluation_id == evaluation_id, places))
            await db.execute(insert(TaskSampleRow), list(rows.values()))

    async def evaluation(self, evaluation_id: str) -> TaskEvaluation:
        """The evaluation of an id. NotFoundError."""
        query = select(TaskEvaluationRow.payload).where(TaskEvaluationRow.id == evaluation_id)
        async with self._engine.connect() as db:
            payload = await db.scalar(query)
        if payload is None:
            raise NotFoundError(
                f"there is no evaluation {evaluation_id!r}; `perilune evaluations` shows those there are"
            )
        return TaskEvaluation.FromString(payload)

    async def evaluations(self, run_id: str, task: str) -> list[TaskEvaluation]:
        """The newest evaluations, of a run and of a task where these are given."""
        query = select(TaskEvaluationRow.payload).order_by(TaskEvaluationRow.time_ns.desc()).limit(MAX_EVALUATIONS)
        if run_id:
            query = query.where(TaskEvaluationRow.run_id == run_id)
        if task:
            query = query.where(TaskEvaluationRow.task == task)
        async with self._engine.connect() as db:
            return [TaskEvaluation.FromString(payload) for payload in await db.scalars(query)]

    async def samples(
        self, evaluation_id: str, limit: int, offset: int, *, only_wrong: bool
    ) -> tuple[list[TaskSample], int]:
        """Samples by problem and number, and how many there are in all."""
        wanted: ColumnElement[bool] = TaskSampleRow.evaluation_id == evaluation_id
        if only_wrong:
            wanted &= or_(TaskSampleRow.value < 1, TaskSampleRow.value.is_(None))
        query = select(TaskSampleRow.payload).where(wanted).order_by(TaskSampleRow.problem, TaskSampleRow.number)
        async with self._engine.connect() as db:
            total = await db.scalar(select(func.count()).select_from(TaskSampleRow).where(wanted))
            found = [TaskSample.FromString(payload) for payload in await db.scalars(query.limit(limit).offset(offset))]
        return found, total or 0


def _row_of(evaluation: TaskEvaluation) -> dict[str, object]:
    score = evaluation.scores[0]
    return {
        "id": evaluation.id,
        "run_id": evaluation.run_id or None,
        "version": evaluation.policy.number if evaluation.run_id else None,
        "model": evaluation.model,
        "digest": evaluation.policy.digest,
        "task": evaluation.task,
        "metric": score.name,
        "score": score.value,
        "low": score.low if score.HasField("low") else None,
        "high": score.high if score.HasField("high") else None,
        "num_samples": evaluation.num_samples,
        "harness": evaluation.harness,
        "harness_version": evaluation.harness_version,
        "settings": evaluation.settings_json,
        "time_ns": evaluation.time_unix_ns,
        "payload": evaluation.SerializeToString(),
    }


def _sample_row(evaluation_id: str, sample: TaskSample) -> dict[str, object]:
    return {
        "evaluation_id": evaluation_id,
        "problem": sample.problem,
        "number": sample.number,
        "value": sample.value if sample.HasField("value") else None,
        "num_tokens": sample.num_tokens,
        "payload": sample.SerializeToString(),
    }
