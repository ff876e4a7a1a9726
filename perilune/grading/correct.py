"""Decides whether a scored answer is right."""

from __future__ import annotations

from perilune.api.reward.v1.reward_pb2 import Score


def is_correct(score: Score) -> bool:
    """Tests whether the recipe's first grader says that the answer is right; the others, such as format, shape the
    reward."""
    return bool(score.components) and score.components[0].value >= 1
