"""Prompts in proportion to their failures (k1.5 §2.3.4)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from perilune.recipe import PrioritizedSampler
from services.master.prompts import PromptSet
from services.master.samplers.sampler import Draw
from services.master.samplers.statistics import Statistic


@dataclass(frozen=True)
class Prioritized:
    """Draws with probability proportional to 1 - success rate.

    What was given up once has not shown that it can be learnt from: it comes when no other is left.
    """

    table: PrioritizedSampler
    prompts: PromptSet
    needs = (Statistic.SUCCESS_RATES, Statistic.DEAD_GROUPS)

    def candidates(self, number: int) -> Sequence[int]:
        """See `Sampler`."""
        return range(self.prompts.num_train)

    def choose(self, draw: Draw) -> list[int]:
        """See `Sampler`."""
        rates, dead = draw.statistics[Statistic.SUCCESS_RATES], draw.statistics[Statistic.DEAD_GROUPS]
        weights = [0.0 if index in dead else 1 - rates.get(index, 0.0) for index in draw.usable]
        return [draw.usable[place] for place in weighted(weights, draw.size, draw.random)]


def weighted(weights: Sequence[float], size: int, random: Random) -> list[int]:
    """Draws places without replacement, with probability proportional to weight; all, if there are fewer.

    By Efraimidis and Spirakis: the largest u^(1/w) for uniform u. Weights of 0 come only when no other is left.
    """
    keys = [(random.random() ** (1 / weight) if weight > 0 else random.random() - 1) for weight in weights]
    return heapq.nlargest(size, range(len(weights)), key=keys.__getitem__)
