"""GRPO (arXiv:2402.03300 §4.1): each token's ratio to the iteration's policy is clipped, as PPO does.

With the ratio w = π_θ/π_i of a token and the advantage A = (r - mean r) / std r of its response, a response's loss is

    - mean over its tokens of min(w·A, clip(w, 1 - ε, 1 + ε')·A) - β·kl

ε' is ε, or larger (DAPO's clip-higher, arXiv:2503.14476 §3.1). kl estimates the token's KL divergence from a frozen
policy; β = 0, the default, leaves that policy away. Left out: importance corrections.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from perilune.objectives.kl import KlEstimator, kl_estimate
from perilune.objectives.objective import ITERATION, Loss, LossRow, Need, Objective

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-6  # added to the standard deviation: rewards that differ by rounding alone stay unimportant


class Grpo(Objective):
    """Advantages normalised by group, each token's ratio clipped, and a penalty towards a frozen policy."""

    type: Literal["grpo"]
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2  # a token's ratio counts within [1 - clip, 1 + clip]
    clip_high: PositiveFloat | None = None  # the upper distance, where it is another one (DAPO's clip-higher)
    kl_weight: NonNegativeFloat = 0.0  # β; above 0 the trainer holds a frozen policy beside the one it trains
    kl_estimator: KlEstimator = "k3"
    frozen_model: str | None = None  # the frozen policy, as model.path names one; version 0 of the run, if not given

    @model_validator(mode="after")
    def _uses_frozen_model(self) -> Grpo:
        if self.frozen_model is not None and not self.kl_weight:
            raise ValueError("frozen_model is used by a penalty only: set kl_weight above 0 as well")
        return self

    @property
    def needs(self) -> frozenset[Need]:
        """The iteration's policy, and with a penalty the frozen one."""
        return ITERATION | {"frozen"} if self.kl_weight else ITERATION

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """(r - mean r) / std r of its response."""
        return normalized(rewards)

    def loss(self, row: LossRow) -> Loss:
        """The clipped surrogate with its penalty, averaged over each sequence's tokens."""
        high = self.clip if self.clip_high is None else self.clip_high
        ratio_S = row.log_ratio_S.exp()
        free_S = ratio_S * row.advantage_S
        clipped_S = ratio_S.clamp(1 - self.clip, 1 + high) * row.advantage_S
        gained_S, observed = free_S.minimum(clipped_S), {"clipped": (clipped_S < free_S).float()}
        if row.frozen_S is not None:
            kl_S = kl_estimate(self.kl_estimator, row.policy_S, row.frozen_S)
            gained_S, observed["frozen_kl"] = gained_S - self.kl_weight * kl_S, kl_S.detach()
        return Loss(-(row.weight_n * row.means(gained_S)).sum(), observed)

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """`clipped`: the share of tokens whose gradient the clip takes away. `frozen_kl`: the mean estimate, nats a
        token."""
        return {name: values_S.mean().item() for name, values_S in observed.items()}


def normalized(rewards: Sequence[float]) -> list[float]:
    """(r_j - mean) / standard deviation of one group; exactly zero for all where the rewards are all equal."""
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    deviation = math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    return [(reward - mean) / (deviation + EPSILON) for reward in rewards]
