"""Holds how the responses of one group are compared: what several objectives share.

All are exactly zero, to the last bit, for a group whose rewards are all equal: by that it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

EPSILON = 1e-6  # added to the standard deviation: rewards that differ by rounding alone stay unimportant


def centred(rewards: Sequence[float]) -> list[float]:
    """r_j - mean of one group."""
    return above(rewards, math.fsum(rewards) / len(rewards))


def above(rewards: Sequence[float], level: float) -> list[float]:
    """r_j - level of one group; zero for all where the rewards are all equal, whatever the level."""
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    return [reward - level for reward in rewards]


def normalized(rewards: Sequence[float]) -> list[float]:
    """(r_j - mean) / standard deviation of one group."""
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    deviation = math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    return [(reward - mean) / (deviation + EPSILON) for reward in rewards]


def left_one_out(rewards: Sequence[float]) -> list[float]:
    """r_j less the mean of the others of one group; zero where there is no other."""
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    total, num_others = math.fsum(rewards), len(rewards) - 1
    return [reward - (total - reward) / num_others for reward in rewards]
