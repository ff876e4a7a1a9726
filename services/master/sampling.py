"""Which prompts an iteration draws (k1.5 §2.3.4): pure functions of the run's seed, the iteration and statistics.

Nothing is carried from call to call, so a run that resumes draws what it would have drawn.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from random import Random

from perilune.recipe import SamplingTable


def draw(
    sampling: SamplingTable,
    iteration: int,
    num_draws: int,
    num_prompts: int,
    seed: int,
    success_rates: Mapping[int, float],
    difficulty: Callable[[int], float],
) -> list[int]:
    """Indices of the prompts of one iteration.

    Args:
        sampling: the recipe's strategy.
        num_draws: how many to draw; distinct as long as there are so many.
        num_prompts: size of the training set.
        success_rates: share of right samples of each prompt that was tried, by index.
        difficulty: the data's own label of a prompt, only asked for by a curriculum.
    """
    if sampling.strategy == "prioritized":
        weights = [1 - success_rates.get(index, 0.0) for index in range(num_prompts)]
        return prioritized(weights, num_draws, Random(f"{seed}/prioritized/{iteration}"))
    if sampling.strategy == "curriculum" and iteration >= sampling.warmup_iterations:
        hard = [index for index in range(num_prompts) if difficulty(index) >= sampling.min_difficulty]
        past = iteration - sampling.warmup_iterations
        return [hard[i] for i in uniform(past * num_draws, num_draws, len(hard), seed)] if hard else []
    return uniform(iteration * num_draws, num_draws, num_prompts, seed)


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
