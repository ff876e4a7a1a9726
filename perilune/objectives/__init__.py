"""`[trainer.objective]`: what a run trains on. One objective is one file, with its keys and its maths, and one row.

A recipe is read, and the master judges groups, without torch: a file of this folder imports it for types alone, and
computes with the methods of tensors.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from perilune.objectives.cispo import Cispo
from perilune.objectives.dapo import Dapo
from perilune.objectives.distill import Distill
from perilune.objectives.dppo import Dppo
from perilune.objectives.dr_grpo import DrGrpo
from perilune.objectives.grpo import Grpo
from perilune.objectives.gspo import Gspo
from perilune.objectives.k15 import K15
from perilune.objectives.ppo import Ppo
from perilune.objectives.reinforce import Reinforce
from perilune.objectives.rest import Rest
from perilune.objectives.rloo import Rloo
from perilune.objectives.sft import Sft


def _k15_by_default(value: object) -> object:
    return {"type": "k15", **value} if isinstance(value, dict) else value


ObjectiveTable = Annotated[
    K15
    | Grpo
    | Rloo
    | Reinforce
    | DrGrpo
    | Dapo
    | Ppo
    | Gspo
    | Cispo
    | Dppo
    | Rest
    | Distill
    | Sft,
    Field(discriminator="type"),
    BeforeValidator(_k15_by_default),
]  # fmt: skip
"""One of the objectives, by its key `type`."""
