"""The runs of a home whose services have ended, read from its database file at once, with no master in between.

Only what reads plainly is read here: for anything else a master is started, which migrates, tolerates and explains.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from perilune.api.master.v1.master_pb2 import Evaluation, Run, RunState
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion, StageProgress
from perilune.errors import InvalidInputError, MissingDependencyError, RecipeError
from perilune.local.home import services_root
from perilune.policies import policy_version
from perilune.recipe import read_stored_recipe
from perilune.stats import wilson_interval

UNDER_WAY = (
    RunState.RUN_STATE_PENDING,
    RunState.RUN_STATE_STARTING,
    RunState.RUN_STATE_RUNNING,
    RunState.RUN_STATE_STOPPING,
)
# What reading raises where something is not as this version writes it.
UNREADABLE = (
    *(sqlite3.Error, RecipeError, InvalidInputError, MissingDependencyError),
    *(ValueError, TypeError, OverflowError),
)
INTERRUPTED = "its services have ended; `perilune run resume {}` goes on from its last version"


def stored_runs(home: Path) -> list[Run] | None:
    """All runs of the home, newest first, without their ledgers; None where a master has to be asked."""
    database = home / "perilune.db"
    if not database.is_file() or is_held(database):
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return _read(connection)
    except UNREADABLE:
        return None


def is_held(database: Path) -> bool:
    """Tests whether a master works on an SQLite database, or is about to."""
    try:
        with Path(f"{database}.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no master has ever held it
    return False


def _read(connection: sqlite3.Connection) -> list[Run]:
    """sqlite3.Error, RecipeError, ValueError or TypeError for whatever is not as this version writes it."""
    connection.row_factory = sqlite3.Row
    ((revision,),) = connection.execute("SELECT version_num FROM alembic_version")
    if not list((services_root() / "services/master/migrations/versions").glob(f"{revision}*.py")):
        raise ValueError(f"a database of another version: {revision}")
    newest = {row["run_id"]: row for row in connection.execute(_NEWEST)}
    evaluations: dict[str, list[sqlite3.Row]] = {}
    for row in connection.execute(_EVALUATIONS):
        evaluations.setdefault(row["run_id"], []).append(row)
    stages: dict[str, list[sqlite3.Row]] = {}
    for row in connection.execute(_STAGES):
        stages.setdefault(row["run_id"], []).append(row)
    return [
        _run(row, newest.get(row["id"]), evaluations.get(row["id"], []), stages.get(row["id"], []))
        for row in connection.execute(_RUNS)
    ]


_RUNS = (
    "SELECT id, state, reason, recipe, submitted_ns, active_seconds, model_path FROM runs ORDER BY submitted_ns DESC"
)
# SQLite gives the other columns of the greatest row.
_NEWEST = "SELECT run_id, MAX(number) AS number, digest, policy FROM versions GROUP BY run_id"
_STAGES = (
    "SELECT run_id, stage, MAX(step) AS step, name, num_steps, metrics, time_ns FROM stage_steps "
    "GROUP BY run_id, stage ORDER BY stage"
)
_EVALUATIONS = (
    "SELECT run_id, version, mode, digest, num_problems, num_correct, mean_tokens FROM evaluations "
    "ORDER BY version, mode"
)


def _run(
    row: sqlite3.Row, newest: sqlite3.Row | None, evaluations: Sequence[sqlite3.Row], stages: Sequence[sqlite3.Row]
) -> Run:
    recipe = read_stored_recipe(row["recipe"])
    run = Run(
        id=row["id"],
        state=row["state"],
        reason=row["reason"],
        recipe_json=row["recipe"],
        submitted_unix_ns=row["submitted_ns"],
        seconds=row["active_seconds"],
        model_path=row["model_path"],
        num_iterations=recipe.trainer.num_iterations,
        num_versions=recipe.last_version,
        stages=map(_stage, stages),
    )
    if run.state not in RunState.values():
        raise ValueError(f"state {run.state} is not known to this version")
    if run.state in UNDER_WAY:
        run.state, run.reason = RunState.RUN_STATE_INTERRUPTED, INTERRUPTED.format(run.id)
    if newest:
        run.iteration = newest["number"]
        run.policy.CopyFrom(policy_version(newest["number"], newest["digest"], newest["policy"]))
    run.evaluations.extend(_evaluation(each, run.policy.name) for each in evaluations)
    return run


def _stage(row: sqlite3.Row) -> StageProgress:
    return StageProgress(
        index=row["stage"],
        name=row["name"],
        step=row["step"],
        num_steps=row["num_steps"],
        metrics=json.loads(row["metrics"]),
        time_unix_ns=row["time_ns"],
    )


def _evaluation(row: sqlite3.Row, policy_name: str) -> Evaluation:
    policy = PolicyVersion(number=row["version"], digest=row["digest"], name=policy_name)
    return evaluation_of(policy, row["mode"], row["num_problems"], row["num_correct"], row["mean_tokens"])


def evaluation_of(
    policy: PolicyVersion, mode: str, num_problems: int, num_correct: int, mean_tokens: float
) -> Evaluation:
    """An evaluation as people see it: what was counted, with its accuracy and interval."""
    low, high = wilson_interval(num_correct, num_problems)
    return Evaluation(
        policy=policy,
        mode=mode,
        num_problems=num_problems,
        num_correct=num_correct,
        accuracy=num_correct / max(1, num_problems),
        low=low,
        high=high,
        mean_tokens=mean_tokens,
    )
