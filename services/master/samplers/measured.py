"""The whole set first, then what the policy itself finds hard: a curriculum without labels (k1.5 §2.3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perilune.recipe import MeasuredSampler
from services.master.prompts import PromptSet
from services.master.samplers.sampler import Draw
from services.master.samplers.statistics import Statistic
from services.master.samplers.uniform import epochs


@dataclass(frozen=True)
class Measured:
    """Draws uniformly: from all prompts during the warm-up, then from those not tried, or solved seldom enough so far.

    Where these are too few for a draw, the hardest of the others come as well.
    """

    table: MeasuredSampler
    prompts: PromptSet
    needs = (Statistic.SUCCESS_RATES,)

    def candidates(self, number: int) -> Sequence[int]:
        """See `Sampler`."""
        return range(self.prompts.num_train)

    def choose(self, draw: Draw) -> list[int]:
        """See `Sampler`."""
        if draw.number < self.table.warmup_iterations:
            return epochs(draw.candidates, draw.number * draw.size, draw.size, draw.seed)
        rates = draw.statistics[Statistic.SUCCESS_RATES]
        hard = [index for index in draw.usable if rates.get(index, 0.0) <= self.table.max_success_rate]
        if len(hard) >= draw.size:
            return draw.random.sample(hard, draw.size)
        easy = sorted((index for index in draw.usable if index not in set(hard)), key=lambda index: rates[index])
        return hard + easy[: draw.size - len(hard)]
