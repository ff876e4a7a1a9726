"""What of a recipe's rollouts this machine cannot do."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from perilune.errors import MissingDependencyError
from perilune.recipe import EnvironmentTable, Mistake, Recipe
from perilune.recipe.preflight import nearest
from services.rollout.engines.installed import find_libraries
from services.rollout.environments import ENVIRONMENTS


def mistakes(recipe: Recipe) -> list[Mistake]:
    """A wrong environment or option of it, and an engine that is not installed."""
    environment = recipe.rollout.environment
    return [*_of_engine(recipe.rollout.engine.type), *(_of_environment(environment) if environment else ())]


def _of_environment(table: EnvironmentTable) -> Iterator[Mistake]:
    if table.name not in ENVIRONMENTS:
        text = f"there is no environment {table.name!r}; {nearest(table.name, ENVIRONMENTS)}"
        yield Mistake("rollout.environment.name", text)
        return
    module, _, attribute = ENVIRONMENTS[table.name].partition(":")
    fields = option_fields(getattr(import_module(module), attribute))
    try:
        create_model(table.name, __config__=ConfigDict(extra="forbid", strict=True), **fields).model_validate(
            table.options
        )
    except ValidationError as error:
        for detail in error.errors():
            key = str(detail["loc"][0])
            message = f"{detail['msg'][:1].lower()}{detail['msg'][1:]} (got {detail['input']!r:.80})"
            if detail["type"] == "extra_forbidden":
                message = f"{table.name} has no such option; {nearest(key, fields)}"
            yield Mistake(f"rollout.environment.options.{key}", message)
    if table.options.get("end") == "":
        yield Mistake("rollout.environment.options.end", "is empty, and every text would end a turn")


def option_fields(factory: Any) -> dict[str, Any]:
    """The options of an environment, with type and default: its parameters beside the settings."""
    hints = typing.get_type_hints(factory.__init__)
    parameters = list(inspect.signature(factory).parameters.values())[1:]
    return {each.name: (hints[each.name], ... if each.default is each.empty else each.default) for each in parameters}


def _of_engine(engine: str) -> Iterator[Mistake]:
    try:
        find_libraries(engine)
    except MissingDependencyError as error:
        yield Mistake("rollout.engine", str(error), of_machine=True)
