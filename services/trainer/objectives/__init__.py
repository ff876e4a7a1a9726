"""Objectives by the recipe's `trainer.objective.type`. One is a file, its keys in `perilune.recipe` and a row here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perilune.recipe import GrpoTable, K15Table, ObjectiveTable, RlooTable
from services.trainer.objectives.grpo import Grpo
from services.trainer.objectives.k15 import K15
from services.trainer.objectives.objective import Objective
from services.trainer.objectives.rloo import Rloo

OBJECTIVES: dict[type, Callable[[Any], Objective]] = {
    K15Table: K15,
    GrpoTable: Grpo,
    RlooTable: Rloo,
}


def make_objective(table: ObjectiveTable) -> Objective:
    """Makes a recipe's objective."""
    return OBJECTIVES[type(table)](table)
