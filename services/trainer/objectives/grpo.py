"""GRPO (arXiv:2402.03300 §4.1): each token's ratio to the iteration's policy is clipped, as PPO does.

With the ratio w = π_θ/π_i of a token and the advantage A = (r - mean r) / std r of its response, a response's loss is

    - mean over its tokens of min(w·A, clip(w, 1 - ε, 1 + ε')·A)

ε' is ε, or larger (DAPO's clip-higher, arXiv:2503.14476 §3.1). Left out: the penalty for going away from a fixed
policy, and importance corrections.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perilune.recipe import GrpoTable
from services.trainer.objectives.objective import Loss, LossRow, Objective, spread

EPSILON = 1e-6  # added to the standard deviation: rewards that differ by rounding alone stay unimportant


@dataclass(frozen=True)
class Grpo(Objective):
    table: GrpoTable

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[Tensor]:
        return spread(normalized(rewards), num_tokens)

    def loss(self, row: LossRow) -> Loss:
        high = self.table.clip if self.table.clip_high is None else self.table.clip_high
        ratio_S = row.log_ratio_S.exp()
        free_S = ratio_S * row.advantage_S
        clipped_S = ratio_S.clamp(1 - self.table.clip, 1 + high) * row.advantage_S
        losses_n = -row.means(torch.minimum(free_S, clipped_S))
        return Loss((row.weight_n * losses_n).sum(), {"clipped": (clipped_S < free_S).float()})

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """`clipped`: the share of tokens whose gradient the clip takes away."""
        return {"clipped": observed["clipped"].mean().item()} if "clipped" in observed else {}


def normalized(rewards: Sequence[float]) -> list[float]:
    """(r_j - mean) / standard deviation of one group; exactly zero for all where the rewards are all equal."""
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    deviation = math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    return [(reward - mean) / (deviation + EPSILON) for reward in rewards]
