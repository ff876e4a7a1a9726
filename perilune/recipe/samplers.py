"""`[prompts.sampler]`: which prompts an iteration draws (k1.5 §2.3.4); their code is in services/master/samplers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from perilune.table import NonNegativeInt, Share, Table


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


class MeasuredSampler(SamplerBase):
    """The whole set for so many iterations, then only prompts that were not tried, or are solved seldom enough."""

    type: Literal["measured"]
    warmup_iterations: NonNegativeInt = 0
    max_success_rate: Share = 0.5  # of a prompt's samples so far: what is solved more often is left out


class MixtureSampler(SamplerBase):
    """A share of every draw for each value of a label; within one, each prompt once an epoch."""

    type: Literal["mixture"]
    label: str = "source"  # one of prompts.labels
    # By the label's value, in any unit; prompts with other values are never drawn.
    weights: Annotated[dict[str, PositiveFloat], Field(min_length=1)]

    def labels(self) -> dict[str, str]:
        """The label that the mixture goes by."""
        return {"label": self.label}


SamplerTable = Annotated[
    UniformSampler | PrioritizedSampler | CurriculumSampler | MeasuredSampler | MixtureSampler,
    Field(discriminator="type"),
]
