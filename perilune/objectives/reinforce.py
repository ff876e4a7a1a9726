"""REINFORCE (Williams, 1992) with the group's mean as its baseline.

    loss of a response = -(r - mean r)·log π_θ(y|x)        log π_θ summed over the response's tokens

The mean holds a k-th of the response's own reward, which makes the gradient smaller by (k - 1)/k, and leaves its
direction: `rloo` is the same without it. There is no reference: the gradient is right for the first step after
sampling, and nothing holds later ones back, so a recipe takes few steps an iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from perilune.objectives.advantages import centred
from perilune.objectives.corrected import Corrected
from perilune.objectives.objective import Loss, LossRow, Need


class PolicyGradient(Corrected):
    """Base of the objectives whose loss is -A·log π_θ, summed over each response's tokens."""

    @property
    def own_needs(self) -> frozenset[Need]:
        """None: the baseline is the group's."""
        return frozenset()

    def loss(self, row: LossRow) -> Loss:
        """-A·log π_θ, each token with its importance weight, summed over each sequence."""
        gained_S, weights_S = row.advantage_S * row.policy_S, self.weights(row)
        if weights_S is None:
            return Loss(-(row.weight_n * row.sums(gained_S)).sum())
        return Loss(-(row.weight_n * row.sums(weights_S * gained_S)).sum(), {"importance": weights_S})


class Reinforce(PolicyGradient):
    """REINFORCE with the group's mean as baseline."""

    type: Literal["reinforce"]

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """r - mean r of its response."""
        return centred(rewards)
