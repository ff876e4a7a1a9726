"""The k1.5 objective (§2.3.1-2.3.2), sequence by sequence.

At iteration i the reference π_i is the policy that the iteration opened with. For a response y of a prompt x, with
the log ratio ρ = log π_θ(y|x) - log π_i(y|x), summed over the response's tokens, the paper minimises

    surrogate(θ) = (r - b - τ·ρ)²                        b = τ·log Z, or in practice the group's mean reward

Dividing by 2τ changes no minimum, and leaves

    surrogate / (2τ) = (r - b)² / (2τ)  -  (r - b)·ρ  +  (τ/2)·ρ²

whose first term does not depend on θ. `policy_loss` is the rest: its gradient is, sign for sign, the paper's
∇log π_θ·(r - b) - (τ/2)·∇ρ², ascended there and descended here. It keeps its scale when τ shrinks, where the surrogate
itself would fade away with its gradient, and at τ = 0 it is the policy gradient with a baseline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from perilune.objectives.advantages import above
from perilune.objectives.corrected import Corrected
from perilune.objectives.objective import ITERATION, Loss, LossRow, Need

if TYPE_CHECKING:
    from torch import Tensor

Baseline = Literal["mean", "log_z"]


class K15(Corrected):
    """The objective of k1.5 (§2.3.1-2.3.2), summed over each response."""

    type: Literal["k15"] = "k15"
    tau: NonNegativeFloat = 0.1
    # What a reward is compared with: the group's mean, or tau * log((1/k) sum exp(r/tau)).
    baseline: Baseline = "mean"

    @property
    def own_needs(self) -> frozenset[Need]:
        """The iteration's policy."""
        return ITERATION

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """r - b of its response."""
        return advantages(rewards, self.baseline, self.tau)

    def loss(self, row: LossRow) -> Loss:
        """`policy_loss` of each sequence, with its tokens' importance weights where they are corrected."""
        log_ratio_S, advantages_n = row.log_ratio_S, row.of_sequences(row.advantage_S)
        log_ratio_n, weighted_n, observed = row.sums(log_ratio_S), None, {}
        if (weights_S := self.weights(row)) is not None:
            weighted_n, observed["importance"] = row.sums(weights_S * log_ratio_S), weights_S
        losses_n = policy_loss(advantages_n, log_ratio_n, self.tau, weighted_n)
        return Loss((row.weight_n * losses_n).sum(), observed)


def log_z(rewards: Sequence[float], tau: float) -> float:
    """τ·log Z ≈ τ·log((1/k)·Σ_j exp(r_j/τ)) of one group, in units of reward; its limit, the best reward, at τ = 0."""
    best = max(rewards)
    if tau == 0:
        return best
    # Measured from the best reward no exponent is above 0: a small τ cannot overflow.
    return best + tau * math.log(math.fsum(math.exp((reward - best) / tau) for reward in rewards) / len(rewards))


def advantages(rewards: Sequence[float], baseline: Baseline, tau: float) -> list[float]:
    """r_j - b of one group; exactly zero for all where the rewards are all equal."""
    return above(rewards, math.fsum(rewards) / len(rewards) if baseline == "mean" else log_z(rewards, tau))


def policy_loss(
    advantages_N: Tensor, log_ratio_N: Tensor, tau: float, weighted_log_ratio_N: Tensor | None = None
) -> Tensor:
    """The loss of each response: surrogate / (2τ) without its constant, shape (N,).

    `weighted_log_ratio_N`: ρ with each token's importance weight, for tokens that another policy wrote. The weights
    are for what is expected of the policy, the reward; the pull back to π_i holds for the response as it is.
    """
    expected_N = log_ratio_N if weighted_log_ratio_N is None else weighted_log_ratio_N
    return -advantages_N * expected_N + 0.5 * tau * log_ratio_N**2
