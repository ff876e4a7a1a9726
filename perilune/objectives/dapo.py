"""DAPO (arXiv:2503.14476 §3): GRPO with a higher upper clip, averaged over tokens.

With the ratio w = π_θ/π_i of a token and the advantage A = (r - mean r) / std r of its response, a step's loss is

    - mean over all its tokens of min(w·A, clip(w, 1 - ε, 1 + ε')·A)        ε = 0.2, ε' = 0.28

The paper's two other parts are for any objective: groups whose rewards are all equal are left out
(`trainer.drop_uniform_groups`), and responses near the length limit pay (`[reward.overlong]`). Its mean is over the
tokens of one group, then over groups; over all tokens of a step, as here, TRL and verl take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat

from perilune.objectives.advantages import normalized
from perilune.objectives.objective import LossRow
from perilune.objectives.surrogate import ClippedSurrogate, mean_over_tokens

if TYPE_CHECKING:
    from torch import Tensor


class Dapo(ClippedSurrogate):
    """GRPO's advantages, clip-higher, and every token of a step alike."""

    type: Literal["dapo"]
    clip_high: PositiveFloat | None = 0.28

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """(r - mean r) / std r of its response."""
        return normalized(rewards)

    def reduced(self, row: LossRow, values_S: Tensor) -> Tensor:
        """The mean over the tokens of the whole step."""
        return mean_over_tokens(row, values_S)
