"""The whole set first, then hard prompts only (k1.5 §2.3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perilune.errors import InvalidInputError
from perilune.recipe import CurriculumSampler
from services.master.prompts import PromptSet
from services.master.samplers.sampler import Draw
from services.master.samplers.uniform import epochs


@dataclass(frozen=True)
class Curriculum:
    """Draws uniformly: from all prompts during the warm-up, then from those that the data calls hard."""

    table: CurriculumSampler
    prompts: PromptSet
    hard: Sequence[int]
    needs = ()

    def candidates(self, number: int) -> Sequence[int]:
        """See `Sampler`."""
        return range(self.prompts.num_train) if number < self.table.warmup_iterations else self.hard

    def choose(self, draw: Draw) -> list[int]:
        """See `Sampler`."""
        warmup = self.table.warmup_iterations
        past = draw.number if draw.number < warmup else draw.number - warmup
        return epochs(draw.candidates, past * draw.size, draw.size, draw.seed)


def open_sampler(table: CurriculumSampler, prompts: PromptSet) -> Curriculum:
    """Reads the difficulties. InvalidInputError if one is missing, or if there is nothing so hard."""
    difficulties = [difficulty_of(prompts, index, table.difficulty_label) for index in range(prompts.num_train)]
    hard = [index for index, difficulty in enumerate(difficulties) if difficulty >= table.min_difficulty]
    if not hard:
        raise InvalidInputError(
            f"prompts.sampler.min_difficulty: no training prompt is as hard as {table.min_difficulty:g}; the hardest "
            f"has {table.difficulty_label} {max(difficulties):g}"
        )
    return Curriculum(table, prompts, hard)


def difficulty_of(prompts: PromptSet, index: int, label: str) -> float:
    """The number that a training prompt has as its label. InvalidInputError names the prompt if there is none."""
    text = prompts.labels(index).get(label, "")
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        asked = prompts.train(index).messages[-1].content
        raise InvalidInputError(
            f"prompts.sampler.difficulty_label: training prompt {index} ({asked!r:.60}) has "
            f"{text!r} under {label!r}, and a curriculum needs a number"
        )
    return found
