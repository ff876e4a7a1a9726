"""What of a recipe's rollouts this machine cannot do."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from perilune.recipe import EnvironmentTable, Mistake, Recipe
from perilune.recipe.preflight import nearest
from services.rollout.config import RolloutSettings
from services.rollout.environments import ENVIRONMENTS

ENGINE_PATIENCE_S = 20.0


def mistakes(recipe: Recipe) -> list[Mistake]:
    """A wrong environment or option of it, and an engine that is not installed."""
    environment = recipe.rollout.environment
    return [*_of_engine(recipe.rollout.engine), *(_of_environment(environment) if environment else ())]


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
    if engine == "torch":
        if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
            yield Mistake("rollout.engine", f"torch needs {' and '.join(missing)}: pip install -e '.[rollout]'", True)
        return
    python = RolloutSettings().engine_python
    program = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({engine!r}) is None)"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, timeout=ENGINE_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Mistake("rollout.engine", f"PERILUNE_ENGINE_PYTHON={python} cannot be run: {error}", of_machine=True)
        return
    if done.returncode:
        yield Mistake(
            "rollout.engine",
            f"{engine} is not installed for {python}; name a Python that has it with PERILUNE_ENGINE_PYTHON "
            "(docs/engines.md)",
            of_machine=True,
        )
