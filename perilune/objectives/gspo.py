"""GSPO (arXiv:2507.18071 §4): a response has one ratio, the geometric mean of its tokens', and that is clipped.

With s = (π_θ(y|x)/π_i(y|x))^(1/|y|) and the advantage A = (r - mean r) / std r, a response's loss is

    - min(s·A, clip(s, 1 - ε, 1 + ε')·A) - β·kl        ε = 3e-4, ε' = 4e-4

A response is trained on whole or not at all. s lies far nearer to 1 than a token's ratio, and so do the limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat

from perilune.objectives.advantages import normalized
from perilune.objectives.objective import LossRow
from perilune.objectives.surrogate import ClippedSurrogate, mean_over_responses

if TYPE_CHECKING:
    from torch import Tensor


class Gspo(ClippedSurrogate):
    """GRPO's advantages, and the ratio of whole responses clipped."""

    type: Literal["gspo"]
    clip: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    clip_high: PositiveFloat | None = 4e-4

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """(r - mean r) / std r of its response."""
        return normalized(rewards)

    def log_ratio(self, row: LossRow) -> Tensor:
        """The mean over the response that a token belongs to: all of its tokens have the same."""
        return row.means(row.log_ratio_S)[row.sequence_S]

    def reduced(self, row: LossRow, values_S: Tensor) -> Tensor:
        """The mean over each response's tokens, of which the surrogate is the same."""
        return mean_over_responses(row, values_S)
