"""Evaluations by tasks in the database: recorded, replaced, listed; the tables made and taken away again."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from perilune.api.master.v1.master_pb2 import TaskEvaluation, TaskSample, TaskScore
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import InvalidInputError, NotFoundError
from services.master.api.evaluations import check_evaluation, check_sample
from services.master.evaluation_store import EvaluationStore
from services.master.schema import MIGRATIONS
from services.master.store import Store


def evaluation(**fields: Any) -> TaskEvaluation:
    given: dict[str, Any] = {
        "id": "e1", "model": "small", "task": "math500", "harness": "perilune",
        "scores": [TaskScore(name="pass@1", value=0.5, low=0.1, high=0.9)], "time_unix_ns": 1,
    }  # fmt: skip
    return TaskEvaluation(**{**given, **fields})


async def test_an_evaluation_is_recorded_once_with_its_samples(tmp_path: Path) -> None:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
        kept = EvaluationStore(store)
        await store.add_run("run", "{}")
        await kept.record(evaluation(run_id="run", policy=PolicyVersion(number=3, digest="d")))
        await kept.record(evaluation(id="e2", task="sums", time_unix_ns=2))
        better = evaluation(run_id="run", scores=[TaskScore(name="pass@1", value=0.75)], time_unix_ns=3)
        await kept.record(better)
        assert [each.id for each in await kept.evaluations("", "")] == ["e1", "e2"]
        assert await kept.evaluations("run", "") == await kept.evaluations("", "math500") == [better]
        values = [1.0, None, 0.0]
        await kept.record_samples("e1", [TaskSample(problem=n, value=value) for n, value in enumerate(values)])
        await kept.record_samples("e1", [TaskSample(problem=1, value=1.0, response="again")])
        samples, total = await kept.samples("e1", 2, 1, only_wrong=False)
        assert ([each.problem for each in samples], total, samples[0].response) == ([1, 2], 3, "again")
        wrong, total = await kept.samples("e1", 10, 0, only_wrong=True)
        assert ([each.problem for each in wrong], total) == ([2], 1)


async def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
        kept = EvaluationStore(store)
        with pytest.raises(NotFoundError, match="there is no run 'nope'"):
            await kept.record(evaluation(run_id="nope"))
        with pytest.raises(NotFoundError, match="there is no evaluation 'e9'"):
            await kept.record_samples("e9", [TaskSample()])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": ""}, "needs id"),
        ({"task": ""}, "needs task"),
        ({"scores": []}, "has 1 to 100 scores, not 0"),
        ({"scores": [TaskScore(name="x", value=float("nan"))]}, "value of 'x' is nan"),
        ({"scores": [TaskScore(name="x", value=1.0, high=float("inf"))]}, "high of 'x' is inf"),
        ({"scores": [TaskScore(value=1.0)]}, "a score needs a name"),
        ({"model": "m" * 2000}, "model has 2000 bytes"),
        ({"num_samples": (1 << 64) - 1}, "beyond"),
    ],
)
def test_an_evaluation_that_cannot_be_kept_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        check_evaluation(evaluation(**fields))


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (TaskSample(value=float("nan")), "its value is nan"),
        (TaskSample(response="x" * (257 << 10)), "sample 0 of problem 0: response has"),
        (TaskSample(evidence={"why": "x" * (257 << 10)}), "evidence has"),
        (TaskSample(problem=1 << 63), "at most 1000000 problems"),
    ],
)
def test_a_sample_that_cannot_be_kept_is_refused(sample: TaskSample, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        check_sample(sample)


def test_the_tables_are_made_and_taken_away(tmp_path: Path) -> None:
    def tables() -> set[str]:
        with sqlite3.connect(tmp_path / "x.db") as database:
            return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    ours = {"task_evaluations", "task_samples"}
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    for change, revision, there in ((command.upgrade, "head", ours), (command.downgrade, "0007", set())):
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            change(config, revision)
        assert tables() & ours == there
    engine.dispose()
