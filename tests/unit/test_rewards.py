"""The length reward of k1.5 §2.3.3 against numbers worked out by hand."""

from __future__ import annotations

import pytest

from perilune.objectives.shaping import Response, length_rewards, shaped_rewards
from perilune.recipe import RewardTable


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
