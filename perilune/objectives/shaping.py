"""From scores to rewards: the length reward of k1.5 §2.3.3, the price of repetition (§2.6.2) and that of responses near
the length limit (DAPO §3.4).

This is what `Objective.rewards` does unless an objective shapes otherwise; nothing else in the project shapes rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perilune.recipe import OverlongTable, RewardTable


@dataclass(frozen=True)
class Response:
    """One scored response of a group, without its tokens."""

    score: float
    num_tokens: int  # that the policy wrote
    correct: bool  # by the recipe's first grader
    repeated: bool  # it was ended for repeating itself


def shaped_rewards(responses: Sequence[Response], table: RewardTable, iteration: int) -> list[float]:
    """Scores, less the penalties for repetition and near-overlong responses, plus the weighted length reward once its
    warm-up is over."""
    rewards = [response.score - table.repetition_penalty * response.repeated for response in responses]
    if table.overlong is not None:
        prices = [overlong_penalty(response.num_tokens, table.overlong) for response in responses]
        rewards = [reward - price for reward, price in zip(rewards, prices, strict=True)]
    if table.length.weight == 0 or iteration < table.length.warmup_iterations or not responses:
        return rewards
    lambdas = length_rewards([each.num_tokens for each in responses], [each.correct for each in responses])
    return [reward + table.length.weight * length for reward, length in zip(rewards, lambdas, strict=True)]


def overlong_penalty(num_tokens: int, table: OverlongTable) -> float:
    """The price of a response's length (DAPO eq. 13): a ramp over the last `buffer_tokens` before `max_tokens`."""
    over = num_tokens - (table.max_tokens - table.buffer_tokens)
    return table.penalty * min(1.0, max(0.0, over / table.buffer_tokens))


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
