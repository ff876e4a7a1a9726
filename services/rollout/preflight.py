"""Checks of a recipe's rollouts against what this machine has: environments and engines."""

from __future__ import annotations

from perilune.errors import MissingDependencyError
from perilune.recipe import Mistake, Recipe
from services.rollout.engines.installed import find_libraries


def mistakes(recipe: Recipe) -> list[Mistake]:
    """An engine that is not installed."""
    try:
        find_libraries(recipe.rollout.engine.type)
    except MissingDependencyError as error:
        return [Mistake("rollout.engine", str(error), of_machine=True)]
    return []
