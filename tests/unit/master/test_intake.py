from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, SCORE_STATUS_TIMEOUT, Component, Score
from perilune.api.trajectory.v1.trajectory_pb2 import (
    ENDING_REPETITION,
    ENDING_STOP,
    PURPOSE_EVALUATE,
    PURPOSE_TRAIN,
    DeadLetter,
    ScoredTrajectory,
    Segment,
    Trajectory,
)
from perilune.codec import pack
from perilune.recipe import Recipe, check_recipe
from services.master.controller import is_trainable, rewards_of
from services.master.intake import lost_by, scored_of, while_database_fails
from services.master.records import Graded
from services.master.store import Store
from services.master.tables import SampleState


def scored(purpose: int, score: Score) -> ScoredTrajectory:
    sample = Trajectory(id="r.0.1/3", group_id="r.0.1", sample_index=3, purpose=purpose)  # type: ignore[arg-type]
    return ScoredTrajectory(trajectory=sample, score=score)


def ok(value: float) -> Score:
    component = Component(grader="exact", status=SCORE_STATUS_OK, value=value, weight=1)
    return Score(status=SCORE_STATUS_OK, value=value, components=[component])


def test_a_score_becomes_a_line_of_the_ledger() -> None:
    line = scored_of(scored(PURPOSE_TRAIN, ok(1.0)), b"payload")
    assert (line.group_id, line.sample_index, line.state) == ("r.0.1", 3, SampleState.SCORED)
    assert (line.value, line.correct) == (1.0, True)
    assert scored_of(scored(PURPOSE_EVALUATE, ok(0.0)), b"").state == SampleState.EVALUATED


def test_a_responses_length_is_what_the_policy_wrote() -> None:
    """As the trainer has it: the length reward and budgets are of the same numbers on both sides."""
    sample = scored(PURPOSE_TRAIN, ok(1.0))
    for num_tokens, environment in ((2, False), (9, True), (3, False)):
        tokens = pack(np.zeros(num_tokens, np.int32))
        sample.trajectory.segments.append(Segment(tokens=tokens, environment=environment))
    assert scored_of(sample, b"").num_tokens == 5


def test_a_failed_grader_is_dead_and_never_worth_zero() -> None:
    failed = Component(grader="math", status=SCORE_STATUS_TIMEOUT, evidence={"limit": "5 s"})
    line = scored_of(scored(PURPOSE_TRAIN, Score(status=SCORE_STATUS_TIMEOUT, components=[failed])), b"")
    assert (line.state, line.value, line.correct) == (SampleState.DEAD, None, None)
    assert line.reason == "grader math: SCORE_STATUS_TIMEOUT limit: 5 s"


@pytest.mark.parametrize(
    ("letter", "expected"),
    [
        (DeadLetter(trajectory_ids=["r.0.1/3", "r.0.1/4"]), ([("r.0.1", 3), ("r.0.1", 4)], "")),
        (DeadLetter(subject="perilune.r.prompt", message_id="r.0.1/0"), ([], "r.0.1")),
        (DeadLetter(subject="perilune.r.trajectory.finished", message_id="r.0.1/7/finished"), ([("r.0.1", 7)], "")),
        (DeadLetter(subject="perilune.r.prompt", message_id="from elsewhere"), ([], "")),
        (
            DeadLetter(trajectory_ids=["r.0.1/²", f"r.0.1/{10**30}", "r.0.1/-1", "r.0.1", "", "r.0.1/4"]),
            ([("r.0.1", 4)], ""),
        ),
        (DeadLetter(subject="perilune.r.prompt", message_id="r.0.1/²"), ([], "")),
    ],
)
def test_a_dead_letter_says_which_samples_end(letter: DeadLetter, expected: tuple[list[object], str]) -> None:
    assert lost_by(letter) == expected


def run_recipe(reward: dict[str, object] | None = None, **trainer: object) -> Recipe:
    return check_recipe(
        {
            "name": "tiny",
            "model": {"path": "somewhere"},
            "prompts": {"source": "task", "name": "search"},
            "reward": {"graders": [{"name": "exact"}], **(reward or {})},
            "trainer": {"num_iterations": 1, **trainer},
        }
    )


def test_what_can_be_trained_on() -> None:
    right, wrong = Graded(1.0, True, 10, ENDING_STOP), Graded(0.0, False, 10, ENDING_STOP)
    whole, without_uniform = run_recipe(), run_recipe(drop_uniform_groups=True)
    assert not is_trainable([], whole, 0)
    assert not is_trainable([right], whole, 0)
    assert is_trainable([right, right], whole, 0)
    assert not is_trainable([right, right], without_uniform, 0)
    assert is_trainable([right, wrong], without_uniform, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_dead(value: float) -> None:
    line = scored_of(scored(PURPOSE_TRAIN, Score(status=SCORE_STATUS_OK, value=value)), b"")
    assert (line.state, line.value, line.reason) == (
        SampleState.DEAD,
        None,
        f"no score: SCORE_STATUS_OK, value {value}",
    )


def test_what_is_uniform_is_judged_on_the_rewards_of_the_objective() -> None:
    """Two right answers of 10 and 30 tokens: equal scores, rewards 1 + 0.5 and 1 - 0.5 from iteration 2 on."""
    shaping = {"length": {"weight": 1.0, "warmup_iterations": 2}, "repetition_penalty": 0.25}
    recipe = run_recipe(shaping, drop_uniform_groups=True)
    pair = [Graded(1.0, True, 10, ENDING_STOP), Graded(1.0, True, 30, ENDING_STOP)]
    assert rewards_of(pair, recipe, 1) == [1.0, 1.0]
    assert rewards_of(pair, recipe, 2) == [1.5, 0.5]
    assert [is_trainable(pair, recipe, version) for version in (1, 2)] == [False, True]
    assert rewards_of([pair[0], replace(pair[0], ending=ENDING_REPETITION)], recipe, 2) == [1.0, 0.75]
    # A penalty may make unlike scores alike: there is nothing left to prefer.
    alike = [replace(pair[0], value=0.75), replace(pair[0], ending=ENDING_REPETITION)]
    assert rewards_of(alike, recipe, 0) == [0.75] * 2
    assert not is_trainable(alike, recipe, 0)
    assert rewards_of([], recipe, 0) == []


async def test_while_the_database_fails_a_change_is_tried_again(tmp_path: Path) -> None:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/test.db") as store:
        tries: list[Exception] = [OperationalError("update", {}, Exception("database is locked"))]

        async def change() -> str:
            if tries:
                raise tries.pop()
            return "written"

        assert await while_database_fails(store, change) == "written"
        tries.append(OverflowError("Python int too large to convert to SQLite INTEGER"))
        with pytest.raises(OverflowError):
            await while_database_fails(store, change)
