"""Supervised fine-tuning on the policy's own right responses (rejection sampling; STaR, arXiv:2203.14465).

    loss of a group = - mean over all tokens of its right responses of log π_θ

Right is what the recipe's first grader calls so; length rewards and penalties play no part. A group with none is left
out of nothing but the sum: each group weighs alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perilune.objectives.objective import Loss, LossRow, Need, Objective
from perilune.objectives.shaping import Response

if TYPE_CHECKING:
    from perilune.recipe import RewardTable


class Sft(Objective):
    """Maximum likelihood of right responses, token by token."""

    type: Literal["sft"]

    @property
    def needs(self) -> frozenset[Need]:
        """None."""
        return frozenset()

    def rewards(self, responses: Sequence[Response], table: RewardTable, iteration: int) -> list[float]:
        """1 for a right response, 0 for a wrong one."""
        return [float(response.correct) for response in responses]

    def prefers(self, rewards: Sequence[float]) -> bool:
        """Tests whether there is a right response."""
        return max(rewards) > 0

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """k / (tokens of all right responses) for a right response of k, else 0."""
        num_right = sum(count for reward, count in zip(rewards, num_tokens, strict=True) if reward > 0)
        return [len(rewards) / num_right if reward > 0 and num_right else 0.0 for reward in rewards]

    def loss(self, row: LossRow) -> Loss:
        """-A·log π_θ, summed over each sequence's tokens."""
        return Loss(-(row.weight_n * row.sums(row.advantage_S * row.policy_S)).sum())
