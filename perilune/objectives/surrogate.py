"""The family of PPO (arXiv:1707.06347): what each token gains, less a penalty, averaged and ascended.

    loss = - average of (gain - β·kl)

A subclass says how responses are compared (`advantages`), what a token gains (`gain`) and how tokens are averaged
(`reduced`). kl estimates the token's KL divergence from a frozen policy; β = 0, the default, leaves that policy away.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from perilune.objectives.corrected import Corrected
from perilune.objectives.kl import KlEstimator, kl_estimate
from perilune.objectives.objective import ITERATION, Loss, LossRow, Need

if TYPE_CHECKING:
    from torch import Tensor


class Surrogate(Corrected):
    """Base of the objectives that weigh tokens by their ratio to the iteration's policy."""

    kl_weight: NonNegativeFloat = 0.0  # β; above 0 the trainer holds a frozen policy beside the one it trains
    kl_estimator: KlEstimator = "k3"
    frozen_model: str | None = None  # the frozen policy, as model.path names one; version 0 of the run, if not given

    @model_validator(mode="after")
    def _uses_frozen_model(self) -> Self:
        if self.frozen_model is not None and not self.kl_weight:
            raise ValueError("frozen_model is used by a penalty only: set kl_weight above 0 as well")
        return self

    @property
    def own_needs(self) -> frozenset[Need]:
        """The iteration's policy, and with a penalty the frozen one."""
        return ITERATION | {"frozen"} if self.kl_weight else ITERATION

    @abstractmethod
    def gain(self, row: LossRow) -> tuple[Tensor, Tensor]:
        """Returns what each token gains, and 1 where its gradient or its weight is cut, shapes (S,)."""

    @abstractmethod
    def reduced(self, row: LossRow, values_S: Tensor) -> Tensor:
        """The row's part of the average over tokens."""

    def loss(self, row: LossRow) -> Loss:
        """The surrogate with its importance weights and its penalty, averaged as the subclass says."""
        gained_S, clipped_S = self.gain(row)
        observed = {"clipped": clipped_S}
        if (weights_S := self.weights(row)) is not None:
            gained_S, observed["importance"] = weights_S * gained_S, weights_S
        if row.frozen_S is not None:
            kl_S = kl_estimate(self.kl_estimator, row.policy_S, row.frozen_S)
            gained_S, observed["frozen_kl"] = gained_S - self.kl_weight * kl_S, kl_S.detach()
        return Loss(-self.reduced(row, gained_S), observed)

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """`clipped`: the share of tokens that are cut. `frozen_kl`: the mean estimate, nats a token. And what
        `Corrected.metrics` says of importance weights."""
        means = {name: observed[name].mean().item() for name in ("clipped", "frozen_kl") if name in observed}
        return means | super().metrics(observed)


class ClippedSurrogate(Surrogate):
    """With the ratio w = π_θ/π_i of a token and its advantage A: gain = min(w·A, clip(w, 1 - ε, 1 + ε')·A)."""

    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2  # ε: a ratio counts within [1 - clip, 1 + clip]
    clip_high: PositiveFloat | None = None  # ε', where it is not ε (DAPO's clip-higher)

    def log_ratio(self, row: LossRow) -> Tensor:
        """The logarithm of the ratio that is clipped, of each token."""
        return row.log_ratio_S

    def gain(self, row: LossRow) -> tuple[Tensor, Tensor]:
        """The clipped ratio times the advantage, and 1 where the clip takes the gradient away."""
        high = self.clip if self.clip_high is None else self.clip_high
        ratio_S = self.log_ratio(row).exp()
        free_S = ratio_S * row.advantage_S
        clipped_S = ratio_S.clamp(1 - self.clip, 1 + high) * row.advantage_S
        return free_S.minimum(clipped_S), (clipped_S < free_S).float()


def mean_over_responses(row: LossRow, values_S: Tensor) -> Tensor:
    """The mean over each response's tokens, then over responses: a long response weighs as much as a short one."""
    return (row.weight_n * row.means(values_S)).sum()


def mean_over_tokens(row: LossRow, values_S: Tensor) -> Tensor:
    """The mean over all tokens of the step: each weighs the same, whichever response it is in (DAPO §3.3)."""
    return values_S.sum() / row.num_step_tokens
