"""From scores to rewards, step by step: each step is a row of `SHAPING`, by the key of `[reward]` that it reads.

toggle              a reward that counts only within the prompt's budget (Kimi K2.5), in toggle.py
repetition_penalty  the price of repetition (k1.5 §2.6.2)
overlong            the price of responses near the length limit (DAPO §3.4)
length              the length reward (k1.5 §2.3.3)

This is what `Objective.rewards` does unless an objective shapes otherwise; nothing else in the project shapes rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perilune.objectives.toggle import toggle

if TYPE_CHECKING:
    from perilune.recipe import OverlongTable, RewardTable


@dataclass(frozen=True)
class Response:
    """One scored response of a group, without its tokens."""

    score: float
    num_tokens: int  # that the policy wrote
    correct: bool  # by the recipe's first grader
    repeated: bool  # it was ended for repeating itself
    budget_tokens: int | None = None  # of its prompt (`toggle`), once there is one


Step = Callable[[Sequence[float], Sequence[Response], "RewardTable", int], Sequence[float]]
"""Rewards of one group so far, its responses, the keys, and the iteration that trains on them → its rewards."""


def toggled(
    rewards: Sequence[float], responses: Sequence[Response], table: RewardTable, iteration: int
) -> Sequence[float]:
    """Rewards that count only within the prompt's budget, while that phase lasts."""
    return rewards if table.toggle is None else toggle(rewards, responses, table.toggle, iteration)


def less_repetition(
    rewards: Sequence[float], responses: Sequence[Response], table: RewardTable, iteration: int
) -> Sequence[float]:
    """Rewards less the price of responses that were ended for repeating themselves."""
    return [
        reward - table.repetition_penalty * response.repeated
        for reward, response in zip(rewards, responses, strict=True)
    ]


def less_overlong(
    rewards: Sequence[float], responses: Sequence[Response], table: RewardTable, iteration: int
) -> Sequence[float]:
    """Rewards less the price of responses near the length limit."""
    if table.overlong is None:
        return rewards
    prices = [overlong_penalty(response.num_tokens, table.overlong) for response in responses]
    return [reward - price for reward, price in zip(rewards, prices, strict=True)]


def with_length(
    rewards: Sequence[float], responses: Sequence[Response], table: RewardTable, iteration: int
) -> Sequence[float]:
    """Rewards with the weighted length reward, once its warm-up is over."""
    if table.length.weight == 0 or iteration < table.length.warmup_iterations or not responses:
        return rewards
    lambdas = length_rewards([each.num_tokens for each in responses], [each.correct for each in responses])
    return [reward + table.length.weight * length for reward, length in zip(rewards, lambdas, strict=True)]


SHAPING: dict[str, Step] = {
    "toggle": toggled,
    "repetition_penalty": less_repetition,
    "overlong": less_overlong,
    "length": with_length,
}
"""The steps in their order: what decides whether a reward counts comes before what is added and taken off."""


def shaped_rewards(responses: Sequence[Response], table: RewardTable, iteration: int) -> list[float]:
    """The rewards of one group's responses, from their scores."""
    rewards: Sequence[float] = [response.score for response in responses]
    for step in SHAPING.values():
        rewards = step(rewards, responses, table, iteration)
    return list(rewards)


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
