"""`[trainer.objective]`: objectives and their keys; their code is in services/trainer/objectives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat

from perilune.recipe.table import Table

Correction = Literal["truncated", "masked", "sequence", "decoupled", "adaptive"]  # of tokens


class K15Table(Table):
    """The objective of k1.5 (§2.3.1-2.3.2), summed over each response; services/trainer/objectives/k15.py."""

    type: Literal["k15"] = "k15"
    tau: NonNegativeFloat = 0.1
    # What a reward is compared with: the group's mean, or tau * log((1/k) sum exp(r/tau)).
    baseline: Literal["mean", "log_z"] = "mean"
    # Importance weights for tokens that another distribution wrote than the one that is trained; none, if not given.
    correction: Correction | None = None
    correction_limit: Annotated[float, Field(gt=1)] = 2.0  # on an importance weight, or on its inverse
    effective_share: Annotated[float, Field(gt=0, lt=1)] = 0.9  # adaptive: of a batch's tokens, after weighting


class GrpoTable(Table):
    """GRPO: group-normalised advantages, each token's ratio clipped; services/trainer/objectives/grpo.py."""

    type: Literal["grpo"]
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2  # a token's ratio counts within [1 - clip, 1 + clip]
    clip_high: PositiveFloat | None = None  # the upper distance, where it is another one (DAPO's clip-higher)


class RlooTable(Table):
    """REINFORCE with a leave-one-out baseline, which has no keys; services/trainer/objectives/rloo.py."""

    type: Literal["rloo"]


def _k15_by_default(value: object) -> object:
    return {"type": "k15", **value} if isinstance(value, dict) else value


ObjectiveTable = Annotated[
    K15Table | GrpoTable | RlooTable, Field(discriminator="type"), BeforeValidator(_k15_by_default)
]
