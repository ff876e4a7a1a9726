"""REINFORCE with a leave-one-out baseline (RLOO, arXiv:2402.14740 §2.2).

A response's reward is compared with the mean of the group's other ones, which does not depend on it:

    loss = -(r_j - mean of r_i, i ≠ j)·log π_θ(y_j|x)

There is no reference: the gradient is right for the first step after sampling, and nothing holds later ones back, so a
recipe takes few steps an iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from perilune.objectives.advantages import left_one_out
from perilune.objectives.reinforce import PolicyGradient


class Rloo(PolicyGradient):
    """REINFORCE with a leave-one-out baseline."""

    type: Literal["rloo"]

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """r less the mean of the group's others."""
        return left_one_out(rewards)
