"""`[trainer.objective]`: what a run trains on. One objective is one file, with its keys and its maths, and one row.

A recipe is read, and the master judges groups, without torch: a file of this folder imports it for types alone, and
computes with the methods of tensors.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from perilune.objectives.grpo import Grpo
from perilune.objectives.k15 import K15
from perilune.objectives.rloo import Rloo


def _k15_by_default(value: object) -> object:
    return {"type": "k15", **value} if isinstance(value, dict) else value


ObjectiveTable = Annotated[
    K15
    | Grpo
    | Rloo,
    Field(discriminator="type"),
    BeforeValidator(_k15_by_default),
]  # fmt: skip
"""One of the objectives, by its key `type`."""
