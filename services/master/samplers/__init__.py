"""Prompt samplers (k1.5 §2.3.4): which prompts an iteration draws. A kind is one file and one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perilune.recipe import (
    CurriculumSampler,
    MeasuredSampler,
    MixtureSampler,
    PrioritizedSampler,
    SamplerBase,
    UniformSampler,
)
from services.master.prompts import PromptSet
from services.master.samplers import curriculum, mixture
from services.master.samplers.measured import Measured
from services.master.samplers.prioritized import Prioritized
from services.master.samplers.sampler import Sampler
from services.master.samplers.uniform import Uniform

SAMPLERS: dict[type[SamplerBase], Callable[[Any, PromptSet], Sampler]] = {
    UniformSampler: Uniform,
    PrioritizedSampler: Prioritized,
    CurriculumSampler: curriculum.open_sampler,
    MeasuredSampler: Measured,
    MixtureSampler: mixture.open_sampler,
}


def open_sampler(table: SamplerBase, prompts: PromptSet) -> Sampler:
    """Opens a recipe's prompt sampler. InvalidInputError says what the prompts lack for it, and under which key."""
    return SAMPLERS[type(table)](table, prompts)
