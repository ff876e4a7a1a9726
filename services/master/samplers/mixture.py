"""Fixed shares of every draw for groups of prompts, such as the files that they came from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perilune.errors import InvalidInputError
from perilune.recipe import MixtureSampler
from services.master.prompts import PromptSet
from services.master.samplers.sampler import Draw
from services.master.samplers.uniform import epochs

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Mixture:
    """Draws from each part in proportion to its weight, each of its prompts once an epoch."""

    table: MixtureSampler
    prompts: PromptSet
    parts: Mapping[str, Sequence[int]]  # prompts by the label's value
    needs = ()

    def candidates(self, number: int) -> Sequence[int]:
        """See `Sampler`."""
        return sorted(itertools.chain.from_iterable(self.parts.values()))

    def choose(self, draw: Draw) -> list[int]:
        """See `Sampler`."""
        weights = [self.table.weights[value] for value in self.parts]
        before = [counts_of(weights, draw.size, number) for number in range(draw.number)]
        chosen: list[int] = []
        for place, (value, part) in enumerate(self.parts.items()):
            first = sum(counts[place] for counts in before)
            size = counts_of(weights, draw.size, draw.number)[place]
            chosen += epochs(part, first, size, seed_of_part(draw.seed, value)) if size else []
        return chosen


def counts_of(weights: Sequence[float], size: int, number: int) -> list[int]:
    """Returns how many prompts of each part a draw of that number takes; they add up to the size.

    Each is its share of the size, rounded up or down; by an offset that runs through the golden ratio's multiples the
    mean over draws comes to the share itself, so that a part whose share is below one prompt has its turn.
    """
    offset, total = (number * GOLDEN_RATIO) % 1, math.fsum(weights)
    ends = [math.fsum(weights[: place + 1]) * size / total for place in range(len(weights))]
    ends[-1] = float(size)  # not a rounding less
    places = [math.floor(end + offset) for end in ends]
    return [after - before for before, after in itertools.pairwise([0, *places])]


def seed_of_part(seed: int, value: str) -> int:
    """A seed of each part's own: parts of one size must not be shuffled alike."""
    return int.from_bytes(f"{seed}/{value}".encode(), "big")


def open_sampler(table: MixtureSampler, prompts: PromptSet) -> Mixture:
    """Sorts the prompts into parts. InvalidInputError names a weight without prompts, and the values that there are."""
    parts: dict[str, list[int]] = {value: [] for value in table.weights}
    others: set[str] = set()
    for index in range(prompts.num_train):
        value = prompts.labels(index).get(table.label, "")
        if value in parts:
            parts[value].append(index)
        else:
            others.add(value)
    if empty := [value for value, part in parts.items() if not part]:
        there = sorted(others.union(value for value, part in parts.items() if part))
        raise InvalidInputError(
            f"prompts.sampler.weights: no training prompt has {empty[0]!r} under {table.label!r}; there are "
            f"{', '.join(map(repr, there[:10]))}"
        )
    return Mixture(table, prompts, parts)
