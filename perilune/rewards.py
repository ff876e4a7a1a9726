"""From scores to the rewards that enter the objective: the length reward of k1.5 §2.3.3, and what repetition costs.

The trainer trains on them, and the master drops the groups in which they are all equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from perilune.recipe import LengthRewardTable, RewardTable


def length_rewards(lengths: Sequence[int], correct: Sequence[bool]) -> list[float]:
    """The length reward of each response of one group (k1.5 §2.3.3).

    λ_i = 0.5 - (len(i) - min_len) / (max_len - min_len) for a correct response and min(0, λ_i) for a wrong one: being
    short helps only those that are right. Zero for all if all are equally long.
    """
    shortest, longest = min(lengths), max(lengths)
    if shortest == longest:
        return [0.0] * len(lengths)
    shares = [0.5 - (length - shortest) / (longest - shortest) for length in lengths]
    return [share if right else min(0.0, share) for share, right in zip(shares, correct, strict=True)]


def penalized(scores: Sequence[float], repeated: Sequence[bool], penalty: float) -> list[float]:
    """Scores, less the penalty where the response was ended for repeating itself (k1.5 §2.6.2)."""
    return [score - penalty * has_repeated for score, has_repeated in zip(scores, repeated, strict=True)]


def shaped_rewards(
    scores: Sequence[float], lengths: Sequence[int], correct: Sequence[bool], table: LengthRewardTable, iteration: int
) -> list[float]:
    """Scores plus the weighted length reward, which stays out for the recipe's warm-up iterations."""
    if table.weight == 0 or iteration < table.warmup_iterations:
        return list(scores)
    lambdas = length_rewards(lengths, correct)
    return [score + table.weight * length_reward for score, length_reward in zip(scores, lambdas, strict=True)]


def group_rewards(
    scores: Sequence[float],
    lengths: Sequence[int],
    correct: Sequence[bool],
    repeated: Sequence[bool],
    table: RewardTable,
    iteration: int,
) -> list[float]:
    """The rewards of one group's responses, as the objective has them.

    Args:
        lengths: tokens that the policy wrote.
        correct: whether the recipe's first grader finds the answer right.
        repeated: whether it was ended for repeating itself.
        iteration: that trains on them; it decides the length reward's warm-up.
    """
    return shaped_rewards(
        penalized(scores, repeated, table.repetition_penalty), lengths, correct, table.length, iteration
    )
