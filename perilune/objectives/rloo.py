"""REINFORCE with a leave-one-out baseline (RLOO, arXiv:2402.14740 §2.2).

A response's reward is compared with the mean of the group's other ones, which does not depend on it:

    loss = -(r_j - mean of r_i, i ≠ j)·log π_θ(y_j|x)

There is no reference: the gradient is right for the first step after sampling, and nothing holds later ones back, so a
recipe takes few steps an iteration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perilune.objectives.objective import Loss, LossRow, Need, Objective

if TYPE_CHECKING:
    pass


class Rloo(Objective):
    """REINFORCE with a leave-one-out baseline; it has no keys."""

    type: Literal["rloo"]

    @property
    def needs(self) -> frozenset[Need]:
        """None: the baseline is the group's."""
        return frozenset()

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """r less the mean of the group's others."""
        return left_one_out(rewards)

    def loss(self, row: LossRow) -> Loss:
        """-A·log π_θ, summed over each sequence's tokens."""
        return Loss(-(row.weight_n * row.sums(row.advantage_S * row.policy_S)).sum())


def left_one_out(rewards: Sequence[float]) -> list[float]:
    """r_j less the mean of the others; exactly zero for all where the rewards are all equal, or there is one."""
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    total, num_others = math.fsum(rewards), len(rewards) - 1
    return [reward - (total - reward) / num_others for reward in rewards]
