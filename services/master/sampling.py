"""Which prompts an iteration draws (k1.5 §2.3.4): pure functions of the run's seed, the iteration and statistics.

Nothing is carried from call to call, so a run that resumes draws what it would have drawn.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from types import MappingProxyType

from perilune.errors import InvalidInputError, StateError
from perilune.recipe import SamplingTable
from services.master.prompts import PromptSet

MAX_DEAD_GROUPS = 2
"""A prompt is set aside when so many of its groups came to nothing. One may have been others' fault."""


def check_sampling(sampling: SamplingTable, prompts: PromptSet) -> None:
    """Checks before a run begins that its curriculum will have something to draw: InvalidInputError if not."""
    if sampling.strategy != "curriculum":
        return
    hardest = max(difficulty_of(prompts, index, sampling.difficulty_label) for index in range(prompts.num_train))
    if hardest < sampling.min_difficulty:
        raise InvalidInputError(
            f"sampling.min_difficulty = {sampling.min_difficulty:g}: no training prompt is so hard; the hardest has "
            f"{sampling.difficulty_label} {hardest:g}"
        )


def difficulty_of(prompts: PromptSet, index: int, label: str) -> float:
    """The number that a training prompt has as its label. InvalidInputError names the prompt if there is none."""
    prompt = prompts.train(index)
    text = prompt.labels.get(label, "")
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InvalidInputError(
            f"sampling.difficulty_label: training prompt {index} ({prompt.messages[-1].content!r:.60}) has {text!r} "
            f"under {label!r}, and a curriculum needs a number"
        )
    return found


def draw(
    sampling: SamplingTable,
    iteration: int,
    num_draws: int,
    num_prompts: int,
    seed: int,
    success_rates: Mapping[int, float],
    difficulty: Callable[[int], float],
    dead_groups: Mapping[int, int] = MappingProxyType({}),
) -> list[int]:
    """Indices of the prompts of one iteration.

    Args:
        sampling: the recipe's strategy.
        num_draws: how many to draw; distinct as long as there are so many.
        num_prompts: size of the training set.
        success_rates: share of right samples of each prompt that was tried, by index.
        difficulty: the data's own label of a prompt, only asked for by a curriculum.
        dead_groups: how many groups of a prompt were given up, by index, where no sample of it ever came to anything.

    StateError if no prompt is left that can be sampled.
    """
    aside = {index for index, count in dead_groups.items() if count >= MAX_DEAD_GROUPS}
    usable = [index for index in range(num_prompts) if index not in aside]
    past, random = iteration, Random(f"{seed}/{sampling.strategy}/{iteration}")
    if sampling.strategy == "prioritized":
        _check_usable(usable, num_prompts)
        # What was given up once has not shown that it can be learnt from: it comes when no other is left.
        weights = [0.0 if index in dead_groups else 1 - success_rates.get(index, 0.0) for index in usable]
        return [usable[place] for place in prioritized(weights, num_draws, random)]
    candidates: Sequence[int] = range(num_prompts)
    if sampling.strategy == "curriculum" and iteration >= sampling.warmup_iterations:
        candidates = [index for index in candidates if difficulty(index) >= sampling.min_difficulty]
        usable = [index for index in candidates if index not in aside]
        past = iteration - sampling.warmup_iterations
    _check_usable(usable, len(candidates))
    drawn = [candidates[place] for place in uniform(past * num_draws, num_draws, len(candidates), seed)]
    return replaced(drawn, aside, usable, random)


def _check_usable(usable: Sequence[int], num_candidates: int) -> None:
    if not usable:
        raise StateError(f"none of the {num_candidates} prompts that may be drawn can be sampled")


def replaced(drawn: Sequence[int], aside: Collection[int], usable: Sequence[int], random: Random) -> list[int]:
    """The draw with others, at random, in place of prompts that were set aside; distinct as long as there are so many.

    So every usable prompt keeps its place in its epoch, and the batch its size.
    """
    kept = set(drawn) - set(aside)
    others = [index for index in usable if index not in kept] or list(usable)
    random.shuffle(others)
    fresh = itertools.cycle(others)
    return [next(fresh) if index in aside else index for index in drawn]


def uniform(first: int, num_draws: int, num_prompts: int, seed: int) -> list[int]:
    """Draws `first`, `first` + 1, … of an endless sequence of shuffled epochs: each prompt once an epoch."""
    drawn: list[int] = []
    while len(drawn) < num_draws:
        epoch, start = divmod(first + len(drawn), num_prompts)
        order = list(range(num_prompts))
        Random(f"{seed}/epoch/{epoch}").shuffle(order)
        drawn += order[start : start + num_draws - len(drawn)]
    return drawn


def prioritized(weights: Sequence[float], num_draws: int, random: Random) -> list[int]:
    """Draws without replacement with probability proportional to weight (1 - success rate, k1.5 §2.3.4).

    By Efraimidis and Spirakis: the largest u^(1/w) for uniform u. Prompts of weight 0 come only when no other is left.
    """
    keys = [(random.random() ** (1 / weight) if weight > 0 else random.random() - 1) for weight in weights]
    drawn = heapq.nlargest(min(num_draws, len(weights)), range(len(weights)), key=keys.__getitem__)
    while drawn and len(drawn) < num_draws:  # a set smaller than one iteration
        drawn += drawn[: num_draws - len(drawn)]
    return drawn
