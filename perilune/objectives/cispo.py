"""CISPO (arXiv:2506.13585 §3.1): the weight of a token is cut, its gradient is not taken away.

With the ratio w = π_θ/π_i of a token and the advantage A = (r - mean r) / std r of its response, a step's loss is

    - mean over all its tokens of stop[min(w, C)]·A·log π_θ - β·kl

Rare tokens that turn a chain of thought keep their gradient, where PPO's clip drops them after the first step. There is
no lower limit, as in the paper's experiments; it does not say its C, and TRL's advice is 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from perilune.objectives.advantages import normalized
from perilune.objectives.objective import LossRow
from perilune.objectives.surrogate import Surrogate, mean_over_tokens

if TYPE_CHECKING:
    from torch import Tensor


class Cispo(Surrogate):
    """GRPO's advantages, tokens weighed by their cut ratio, every token of a step alike."""

    type: Literal["cispo"]
    ratio_limit: Annotated[float, Field(gt=1)] = 5.0  # C

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """(r - mean r) / std r of its response."""
        return normalized(rewards)

    def gain(self, row: LossRow) -> tuple[Tensor, Tensor]:
        """stop[min(w, C)]·A·log π_θ, and 1 where w is cut."""
        ratio_S = row.log_ratio_S.detach().exp()
        weight_S = ratio_S.clamp_max(self.ratio_limit)
        return weight_S * row.advantage_S * row.policy_S, (ratio_S > self.ratio_limit).float()

    def reduced(self, row: LossRow, values_S: Tensor) -> Tensor:
        """The mean over the tokens of the whole step."""
        return mean_over_tokens(row, values_S)
