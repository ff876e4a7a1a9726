"""Dr. GRPO (arXiv:2503.20783 §3): GRPO without the two divisions that bias it.

With the ratio w = π_θ/π_i of a token and the advantage A = r - mean r of its response, a response's loss is

    - (1/L)·sum over its tokens of min(w·A, clip(w, 1 - ε, 1 + ε')·A) - β·kl        L = rollout.max_tokens

Not divided by the standard deviation, a group weighs by how much its rewards differ; not divided by its own length, a
long wrong response is not let off lightly. L only sets the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from perilune.objectives.advantages import centred
from perilune.objectives.objective import LossRow
from perilune.objectives.surrogate import ClippedSurrogate

if TYPE_CHECKING:
    from torch import Tensor


class DrGrpo(ClippedSurrogate):
    """Advantages that are only centred, and responses summed over their tokens."""

    type: Literal["dr_grpo"]

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """r - mean r of its response."""
        return centred(rewards)

    def reduced(self, row: LossRow, values_S: Tensor) -> Tensor:
        """The sum over each response's tokens, divided by the most that a response may have."""
        return (row.weight_n * row.sums(values_S)).sum() / row.max_tokens
