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
from typing import Literal

from torch import Tensor

Baseline = Literal["mean", "log_z"]


def log_z(rewards: Sequence[float], tau: float) -> float:
    """τ·log Z ≈ τ·log((1/k)·Σ_j exp(r_j/τ)) of one group, in units of reward; its limit, the best reward, at τ = 0."""
    best = max(rewards)
    if tau == 0:
        return best
    # Measured from the best reward no exponent is above 0: a small τ cannot overflow.
    return best + tau * math.log(math.fsum(math.exp((reward - best) / tau) for reward in rewards) / len(rewards))


def advantages(rewards: Sequence[float], baseline: Baseline, tau: float) -> list[float]:
    """r_j - b of one group; exactly zero for all where the rewards are all equal."""
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    level = math.fsum(rewards) / len(rewards) if baseline == "mean" else log_z(rewards, tau)
    return [reward - level for reward in rewards]


def surrogate(advantages_N: Tensor, log_ratio_N: Tensor, tau: float) -> Tensor:
    """The paper's squared surrogate of each response, shape (N,)."""
    return (advantages_N - tau * log_ratio_N) ** 2


def policy_loss(
    advantages_N: Tensor, log_ratio_N: Tensor, tau: float, weighted_log_ratio_N: Tensor | None = None
) -> Tensor:
    """What is descended: surrogate / (2τ) without its constant, of each response, shape (N,).

    `weighted_log_ratio_N`: ρ with each token's importance weight, for tokens that another policy wrote. The weights
    are for what is expected of the policy, the reward; the pull back to π_i holds for the response as it is.
    """
    expected_N = log_ratio_N if weighted_log_ratio_N is None else weighted_log_ratio_N
    return -advantages_N * expected_N + 0.5 * tau * log_ratio_N**2
