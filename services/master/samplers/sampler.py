"""The interface of a prompt sampler, and the rule for prompts that cannot be sampled, which is the same for all."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from perilune.errors import StateError
from perilune.recipe import SamplerBase
from services.master.samplers.statistics import Statistic, Statistics

MAX_DEAD_GROUPS = 2
"""A prompt is set aside when so many of its groups came to nothing. One may have been others' fault."""


@dataclass(frozen=True)
class Draw:
    """One draw of a run, and all that a sampler may decide by."""

    number: int  # counted from 0: where rollouts are synchronous, the iteration
    size: int  # how many prompts to draw; distinct as long as there are so many
    seed: int  # the run's
    candidates: Sequence[int]  # indices of the prompts that may be drawn
    usable: Sequence[int]  # candidates without those that are set aside
    statistics: Statistics  # those that the sampler needs
    random: Random  # the draw's own


class Sampler(Protocol):
    """A kind of prompt sampler, opened on a run's prompts. It carries nothing from draw to draw."""

    @property
    def table(self) -> SamplerBase:
        """The recipe's table."""
        ...

    @property
    def needs(self) -> Collection[Statistic]:
        """Statistics that are to be in every draw; `DEAD_GROUPS` always is."""
        ...

    def candidates(self, number: int) -> Sequence[int]:
        """Indices of the prompts that the draw of that number may take."""
        ...

    def choose(self, draw: Draw) -> Sequence[int]:
        """Indices of `draw.size` candidates, or of all if there are fewer, which are then repeated. Those that are set
        aside are replaced by usable ones afterwards.
        """
        ...


def needed(sampler: Sampler) -> set[Statistic]:
    """Statistics that a draw takes: the sampler's, and those of the rule that all have in common."""
    return {Statistic.DEAD_GROUPS, *sampler.needs}


def draw(sampler: Sampler, number: int, size: int, seed: int, statistics: Statistics) -> list[int]:
    """Indices of the prompts of one draw: a pure function, so that a run that resumes draws what it would have drawn.

    StateError if no prompt is left that can be sampled.
    """
    candidates, aside = sampler.candidates(number), set_aside(statistics[Statistic.DEAD_GROUPS])
    usable = [index for index in candidates if index not in aside]
    if not usable:
        raise StateError(f"none of the {len(candidates)} prompts that may be drawn can be sampled")
    random = Random(f"{seed}/{sampler.table.type}/{number}")
    chosen = sampler.choose(Draw(number, size, seed, candidates, usable, statistics, random))
    drawn = list(itertools.islice(itertools.cycle(chosen), size))
    return replaced(drawn, aside, usable, random)


def set_aside(dead_groups: Mapping[int, float]) -> set[int]:
    """Prompts that are no longer drawn, by how many of their groups were given up."""
    return {index for index, count in dead_groups.items() if count >= MAX_DEAD_GROUPS}


def replaced(drawn: Sequence[int], aside: Collection[int], usable: Sequence[int], random: Random) -> list[int]:
    """The draw with others, at random, in place of prompts that were set aside; distinct as long as there are so many.

    So every usable prompt keeps its place in its epoch, and the batch its size.
    """
    kept = set(drawn) - set(aside)
    others = [index for index in usable if index not in kept] or list(usable)
    random.shuffle(others)
    fresh = itertools.cycle(others)
    return [next(fresh) if index in aside else index for index in drawn]
