"""The length reward of k1.5 §2.3.3 against numbers worked out by hand."""

from __future__ import annotations

import pytest

from perilune.recipe import LengthRewardTable
from perilune.rewards import length_rewards, shaped_rewards


def test_short_right_answers_gain_and_short_wrong_ones_do_not() -> None:
    # λ = 0.5, 0.25, 0, -0.5
    lengths = [10, 15, 20, 30]
    assert length_rewards(lengths, [True] * 4) == pytest.approx([0.5, 0.25, 0.0, -0.5])
    assert length_rewards(lengths, [False] * 4) == pytest.approx([0.0, 0.0, 0.0, -0.5])
    assert length_rewards(lengths, [True, False, True, False]) == pytest.approx([0.5, 0.0, 0.0, -0.5])


def test_equal_lengths_earn_nothing() -> None:
    assert length_rewards([7, 7, 7], [True, False, True]) == [0.0, 0.0, 0.0]


def test_the_warm_up_leaves_scores_alone() -> None:
    table = LengthRewardTable(weight=0.2, warmup_iterations=5)
    scores, lengths, correct = [1.0, 1.0, 0.0], [10, 30, 20], [True, True, False]
    assert shaped_rewards(scores, lengths, correct, table, iteration=4) == scores
    assert shaped_rewards(scores, lengths, correct, table, iteration=5) == pytest.approx([1.1, 0.9, 0.0])
