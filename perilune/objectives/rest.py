"""ReST (arXiv:2308.08998 §3): the policy is fitted to the best of its own responses, and to nothing else.

k1.5 compares itself with it (§3.5, Fig. 10): there are no negative gradients, a wrong response is only left out. Of a
prompt's k responses those with the highest reward are fitted, if that is above a threshold:

    loss of a group = - mean over its best responses of log π_θ(y|x)        log π_θ summed over the response's tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from perilune.objectives.objective import Loss, LossRow, Need, Objective


class Rest(Objective):
    """Maximum likelihood of each group's best responses."""

    type: Literal["rest"]
    threshold: float = 0.0  # a group whose best reward is not above it has nothing to fit

    @property
    def needs(self) -> frozenset[Need]:
        """None."""
        return frozenset()

    def prefers(self, rewards: Sequence[float]) -> bool:
        """Tests whether some response is good enough to be fitted; one that is as good as all others is, too."""
        return max(rewards) > self.threshold

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """k/n for each of the n best of k responses, else 0."""
        if not self.prefers(rewards):
            return [0.0] * len(rewards)
        is_best = [reward == max(rewards) for reward in rewards]
        return [best * len(rewards) / sum(is_best) for best in is_best]

    def loss(self, row: LossRow) -> Loss:
        """-A·log π_θ, summed over each sequence's tokens."""
        return Loss(-(row.weight_n * row.sums(row.advantage_S * row.policy_S)).sum())
