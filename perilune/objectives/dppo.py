"""DPPO with the squared log-ratio: prime-rl's default loss, and the penalty of Kimi K2.5.

With p = π_θ(token) and q = μ(token), the probability that the engine drew the token with, w = p/q and the advantage
A = r - mean r of its response, a step's loss is

    - mean over all its tokens of keep·w·A - τ·(log w)²        keep = 0 where A > 0 and p - q > δ'
                                                                    or A < 0 and p - q < -δ, else 1

keep is DPPO's (arXiv:2602.04879, its binary total variation): how far a probability has moved, not by which factor,
says whether the token is left out, so that rare tokens stay. The squared log-ratio is that of Kimi K2.5
(arXiv:2602.02276), k1.5's pull (§2.3.1) token by token; it holds for tokens that are left out as well. Measured against
μ, both correct for engines that round and for old tokens; other importance weights there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat

from perilune.objectives.advantages import centred
from perilune.objectives.objective import Loss, LossRow, Need, Objective
from perilune.objectives.surrogate import mean_over_tokens

if TYPE_CHECKING:
    from torch import Tensor

Distance = Annotated[float, Field(gt=0, le=1)]


class Dppo(Objective):
    """Advantages that are only centred, tokens left out that have moved far, and a pull back to what was drawn."""

    type: Literal["dppo"]
    mask_low: Distance = 0.2  # δ: how far the probability of a bad token may fall
    mask_high: Distance = 0.2  # δ': how far the probability of a good token may rise
    tau: NonNegativeFloat = 1e-3  # τ, of the squared log-ratio

    @property
    def needs(self) -> frozenset[Need]:
        """Returns what tokens were drawn with."""
        return frozenset({"behaviour"})

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """r - mean r of its response."""
        return centred(rewards)

    def loss(self, row: LossRow) -> Loss:
        """The masked policy gradient and the pull, averaged over the tokens of the whole step."""
        assert row.behaviour_S is not None  # as `needs` says
        log_ratio_S, left_out_S = row.policy_S - row.behaviour_S, self._left_out(row)
        gained_S = (row.advantage_S * log_ratio_S.exp()).where(~left_out_S, 0.0) - self.tau * log_ratio_S**2
        return Loss(-mean_over_tokens(row, gained_S), {"clipped": left_out_S.float()})

    def _left_out(self, row: LossRow) -> Tensor:
        assert row.behaviour_S is not None
        moved_S = row.policy_S.detach().exp() - row.behaviour_S.exp()
        rose_S, fell_S = moved_S > self.mask_high, moved_S < -self.mask_low
        return ((row.advantage_S > 0) & rose_S) | ((row.advantage_S < 0) & fell_S)

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """`clipped`: the share of tokens that are left out."""
        return {name: values_S.mean().item() for name, values_S in observed.items()}
