"""The length reward of k1.5 §2.3.3 against numbers worked out by hand."""

from __future__ import annotations

import pytest

from perilune.errors import RecipeError
from perilune.objectives.shaping import Response, length_rewards, overlong_penalty, shaped_rewards
from perilune.recipe import OverlongTable, RewardTable, check_recipe


def test_short_right_answers_gain_and_short_wrong_ones_do_not() -> None:
    # λ = 0.5, 0.25, 0, -0.5
    lengths = [10, 15, 20, 30]
    assert length_rewards(lengths, [True] * 4) == pytest.approx([0.5, 0.25, 0.0, -0.5])
    assert length_rewards(lengths, [False] * 4) == pytest.approx([0.0, 0.0, 0.0, -0.5])
    assert length_rewards(lengths, [True, False, True, False]) == pytest.approx([0.5, 0.0, 0.0, -0.5])


def test_equal_lengths_earn_nothing() -> None:
    assert length_rewards([7, 7, 7], [True, False, True]) == [0.0, 0.0, 0.0]


def test_the_warm_up_leaves_scores_alone() -> None:
    table = RewardTable.model_validate(
        {"graders": [{"name": "exact"}], "length": {"weight": 0.2, "warmup_iterations": 5}}
    )
    responses = [Response(1.0, 10, True, False), Response(1.0, 30, True, False), Response(0.0, 20, True, False)]
    assert shaped_rewards(responses, table, iteration=4) == [1.0, 1.0, 0.0]
    assert shaped_rewards(responses, table, iteration=5) == pytest.approx([1.1, 0.9, 0.0])


def test_a_response_near_the_limit_pays_in_proportion() -> None:
    table = OverlongTable(max_tokens=100, buffer_tokens=20, penalty=0.5)
    assert [overlong_penalty(n, table) for n in (10, 80, 85, 90, 100, 120)] == pytest.approx(
        [0, 0, 0.125, 0.25, 0.5, 0.5]
    )
    rewards = RewardTable.model_validate({"graders": [{"name": "exact"}], "overlong": table.model_dump()})
    responses = [Response(1.0, 50, True, False), Response(1.0, 95, True, False)]
    assert shaped_rewards(responses, rewards, iteration=0) == pytest.approx([1.0, 0.625])


@pytest.mark.parametrize(
    ("overlong", "reason"),
    [
        ({"max_tokens": 50, "buffer_tokens": 51}, "buffer_tokens 51 is more than max_tokens 50"),
        ({"max_tokens": 65, "buffer_tokens": 5}, r"overlong.max_tokens = 65 .* rollout.max_tokens is 64"),
    ],
)
def test_a_limit_that_no_response_meets_is_refused(overlong: dict[str, int], reason: str) -> None:
    document = {
        "name": "x",
        "model": {"path": "unused"},
        "prompts": {"source": "task", "name": "search"},
        "rollout": {"max_tokens": 64},
        "reward": {"graders": [{"name": "exact"}], "overlong": overlong},
        "trainer": {"num_iterations": 1},
    }
    with pytest.raises(RecipeError, match=reason):
        check_recipe(document)
