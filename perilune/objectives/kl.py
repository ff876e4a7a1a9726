"""Per-token estimates of KL(π_θ ‖ π_ref), from tokens that π_θ drew (Schulman, "Approximating KL divergence", 2020).

With d = log π_θ - log π_ref of a token, in nats:

    k1   d                    unbiased, and of either sign
    k2   d²/2                 biased, never negative
    k3   exp(-d) - 1 + d      unbiased, never negative: DeepSeekMath's penalty (arXiv:2402.03300, eq. 4)

As a penalty an estimate works through its gradient, whose mean over tokens of π_θ is another matter: zero for k1, which
therefore holds nothing back; the gradient of KL(π_θ ‖ π_ref) for k2; that of KL(π_ref ‖ π_θ) for k3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(kind: KlEstimator, policy_S: Tensor, frozen_S: Tensor) -> Tensor:
    """The estimate of each token, with its gradient in `policy_S`."""
    log_ratio_S = policy_S - frozen_S
    if kind == "k1":
        return log_ratio_S
    return 0.5 * log_ratio_S**2 if kind == "k2" else (-log_ratio_S).expm1() + log_ratio_S
