"""A run as people see it: what the database holds of it, however much of that this version can read."""

from __future__ import annotations

import json

from google.protobuf.message import DecodeError
from sqlalchemy.exc import SQLAlchemyError

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import RecipeError
from perilune.local.stored_runs import INTERRUPTED, UNDER_WAY, evaluation_of
from perilune.recipe import read_stored_recipe
from services.master.store import Store
from services.master.tables import EvaluationRow, RunRow


async def describe(store: Store, row: RunRow, unwritten_seconds: float = 0.0, *, is_driven: bool = True) -> m.Run:
    """The run of a row. What cannot be read of it is left out, and `problem` says why.

    Args:
        unwritten_seconds: of its time, not yet in the database.
        is_driven: whether a master works on it, or soon will.
    """
    run = m.Run(
        id=row.id,
        reason=row.reason,
        recipe_json=row.recipe,
        submitted_unix_ns=row.submitted_ns,
        seconds=row.active_seconds + unwritten_seconds,
        model_path=row.model_path,
    )
    problems = [_fill_state(run, row.state, is_driven), _fill_iterations(run), _fill_prompts(run, row.prompts)]
    problems.append(await _fill_results(store, run))
    run.problem = "; ".join(filter(None, problems))
    return run


def _fill_state(run: m.Run, state: int, is_driven: bool) -> str:
    if state not in m.RunState.values():
        return f"its state {state} is not known to this version"
    run.state = state  # type: ignore[assignment]
    if state in UNDER_WAY and not is_driven:
        run.state, run.reason = m.RUN_STATE_INTERRUPTED, INTERRUPTED.format(run.id)
    return ""


def _fill_iterations(run: m.Run) -> str:
    try:
        recipe = read_stored_recipe(run.recipe_json)
        run.num_iterations, run.num_versions = recipe.trainer.num_iterations, recipe.last_version
    except RecipeError as error:
        run.num_iterations = run.num_versions = _num_iterations(run.recipe_json)
        return " ".join(str(error).split())
    return ""


def _fill_prompts(run: m.Run, summary: bytes | None) -> str:
    try:
        if summary is not None:
            run.prompts.ParseFromString(summary)
    except DecodeError:
        return "what its prompts were cannot be read"
    return ""


def _num_iterations(recipe_json: str) -> int:
    """Of a recipe that cannot be read otherwise; 0 if not even that can be."""
    try:
        return max(0, int(json.loads(recipe_json)["trainer"]["num_iterations"]))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return 0


async def _fill_results(store: Store, run: m.Run) -> str:
    """Its newest version, stages, evaluations and ledger."""
    try:
        policy = await store.newest_version(run.id)
        if policy:
            run.policy.CopyFrom(policy)
            run.iteration = policy.number
        run.stages.extend(await store.newest_stage_steps(run.id))
        run.evaluations.extend(_evaluation(e, run.policy.name) for e in await store.evaluations(run.id))
        run.ledger.CopyFrom(await store.ledger(run.id))
    except (SQLAlchemyError, ValueError, TypeError) as error:  # rows that another version or another hand wrote
        return f"its results cannot be read: {error}"
    return ""


def _evaluation(row: EvaluationRow, policy_name: str) -> m.Evaluation:
    policy = PolicyVersion(number=row.version, digest=row.digest, name=policy_name)
    return evaluation_of(policy, row.mode, row.num_problems, row.num_correct, row.mean_tokens)
