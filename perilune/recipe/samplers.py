"""`[prompts.sampler]`: which prompts an iteration draws (k1.5 §2.3.4); their code is in services/master/samplers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perilune.table import NonNegativeInt, Table


class SamplerBase(Table):
    """A prompt sampler: which prompts an iteration draws (k1.5 §2.3.4); its kinds are in services/master/samplers."""

    type: str

    def labels(self) -> dict[str, str]:
        """The labels that every training prompt must have, by the key of this table that names them."""
        return {}


class UniformSampler(SamplerBase):
    """Each prompt once an epoch, in an order of the seed's."""

    type: Literal["uniform"]


class PrioritizedSampler(SamplerBase):
    """Prompts in proportion to their failures: 1 - the success rate so far."""

    type: Literal["prioritized"]


class CurriculumSampler(SamplerBase):
    """The whole set for so many iterations, then only prompts at least so hard; uniformly."""

    type: Literal["curriculum"]
    warmup_iterations: NonNegativeInt = 0
    difficulty_label: str = "difficulty"  # one of prompts.labels; a number in every row
    min_difficulty: float = 0.5

    def labels(self) -> dict[str, str]:
        """The label of a prompt's difficulty."""
        return {"difficulty_label": self.difficulty_label}


SamplerTable = Annotated[UniformSampler | PrioritizedSampler | CurriculumSampler, Field(discriminator="type")]
