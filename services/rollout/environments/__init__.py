"""Environments for several turns. A new one is a file here and a row in the table; `rollout.environment` names it."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from perilune.errors import InvalidInputError
from perilune.recipe import EnvironmentTable
from services.rollout.config import RolloutSettings
from services.rollout.environments.base import Environment

ENVIRONMENTS = {
    "calculator": "services.rollout.environments.calculator:Calculator",
    "sandbox": "services.rollout.environments.sandbox:SandboxTool",
}


class EnvironmentFactory(Protocol):
    """Takes the recipe's options by name."""

    def __call__(self, settings: RolloutSettings, **options: str | int | float | bool) -> Environment: ...


def make_environment(table: EnvironmentTable, settings: RolloutSettings) -> Environment:
    """One sample's environment. InvalidInputError for a name that is not in the table, or an option it has not."""
    if table.name not in ENVIRONMENTS:
        raise InvalidInputError(f"there is no environment {table.name!r}; known are {', '.join(sorted(ENVIRONMENTS))}")
    module, _, attribute = ENVIRONMENTS[table.name].partition(":")
    factory: EnvironmentFactory = getattr(import_module(module), attribute)
    try:
        return factory(settings, **table.options)
    except TypeError as error:
        raise InvalidInputError(f"rollout.environment.options do not fit {table.name!r}: {error}") from error
