"""PPO's clip (arXiv:1707.06347 §3) with a group's mean in place of a value function, and a dual clip.

With the ratio w = π_θ/π_i of a token and the advantage A = r - mean r of its response, a step's loss is

    - mean over all its tokens of gain - β·kl        gain = min(w·A, clip(w, 1 - ε, 1 + ε')·A)
                                                     gain = max(gain, c·A) where A < 0

The dual clip c (arXiv:1912.09729 §3) bounds the loss of a bad token that has become likely, which the plain clip leaves
free. Without a value function and with all of the reward at the end, every token of a response has the same advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from perilune.objectives.advantages import centred
from perilune.objectives.objective import LossRow
from perilune.objectives.surrogate import ClippedSurrogate, mean_over_tokens

if TYPE_CHECKING:
    from torch import Tensor


class Ppo(ClippedSurrogate):
    """Advantages that are only centred, each token's ratio clipped, every token of a step alike."""

    type: Literal["ppo"]
    dual_clip: Annotated[float, Field(gt=1)] | None = None  # c; without it bad tokens are clipped from below alone

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """r - mean r of its response."""
        return centred(rewards)

    def reduced(self, row: LossRow, values_S: Tensor) -> Tensor:
        """The mean over the tokens of the whole step."""
        return mean_over_tokens(row, values_S)

    def gain(self, row: LossRow) -> tuple[Tensor, Tensor]:
        """The clipped ratio times the advantage, and 1 where one of the clips takes the gradient away."""
        gained_S, clipped_S = super().gain(row)
        if self.dual_clip is None:
            return gained_S, clipped_S
        least_S = self.dual_clip * row.advantage_S
        is_bounded_S = (row.advantage_S < 0) & (gained_S < least_S)
        return least_S.where(is_bounded_S, gained_S), clipped_S.maximum(is_bounded_S.float())
