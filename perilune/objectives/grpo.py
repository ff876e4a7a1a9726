"""GRPO (arXiv:2402.03300 §4.1): each token's ratio to the iteration's policy is clipped, as PPO does.

With the ratio w = π_θ/π_i of a token and the advantage A = (r - mean r) / std r of its response, a response's loss is

    - mean over its tokens of min(w·A, clip(w, 1 - ε, 1 + ε')·A) - β·kl

std is the group's own, divided by k. TRL and verl divide by k - 1, so that their advantages are smaller by the factor
√((k - 1)/k).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perilune.objectives.advantages import normalized
from perilune.objectives.objective import LossRow
from perilune.objectives.surrogate import ClippedSurrogate, mean_over_responses

if TYPE_CHECKING:
    from torch import Tensor


class Grpo(ClippedSurrogate):
    """Advantages normalised by group, each token's ratio clipped, and a penalty towards a frozen policy."""

    type: Literal["grpo"]

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """(r - mean r) / std r of its response."""
        return normalized(rewards)

    def reduced(self, row: LossRow, values_S: Tensor) -> Tensor:
        """The mean over each response's tokens."""
        return mean_over_responses(row, values_S)
