"""Each prompt once an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from perilune.recipe import UniformSampler
from services.master.prompts import PromptSet
from services.master.samplers.sampler import Draw


@dataclass(frozen=True)
class Uniform:
    """Draws through one shuffled epoch of the training set after the other."""

    table: UniformSampler
    prompts: PromptSet
    needs = ()

    def candidates(self, number: int) -> Sequence[int]:
        """See `Sampler`."""
        return range(self.prompts.num_train)

    def choose(self, draw: Draw) -> list[int]:
        """See `Sampler`."""
        return epochs(draw.candidates, draw.number * draw.size, draw.size, draw.seed)


def epochs(candidates: Sequence[int], first: int, size: int, seed: int) -> list[int]:
    """Elements `first`, `first` + 1, … of an endless sequence of shuffled epochs: each candidate once an epoch."""
    drawn: list[int] = []
    while len(drawn) < size:
        epoch, start = divmod(first + len(drawn), len(candidates))
        order = list(candidates)
        Random(f"{seed}/epoch/{epoch}").shuffle(order)
        drawn += order[start : start + size - len(drawn)]
    return drawn
