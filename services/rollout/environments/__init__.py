"""Environments for several turns. A kind is one file and one row; `[rollout.environment]` or a prompt names it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from pydantic import TypeAdapter, ValidationError

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError
from perilune.recipe import (
    CalculatorEnvironment,
    EnvironmentBase,
    EnvironmentTable,
    GuessEnvironment,
    SandboxEnvironment,
)
from perilune.runtime.bus import in_words
from services.rollout.config import RolloutSettings
from services.rollout.environments.base import Environment

ENVIRONMENTS: dict[type[EnvironmentBase], str] = {
    CalculatorEnvironment: "services.rollout.environments.calculator:Calculator",
    GuessEnvironment: "services.rollout.environments.guess:Guess",
    SandboxEnvironment: "services.rollout.environments.sandbox:SandboxTool",
}

_TABLE: TypeAdapter[EnvironmentBase] = TypeAdapter(EnvironmentTable)


def make_environment(table: EnvironmentBase, settings: RolloutSettings) -> Environment:
    """One sample's environment. InvalidInputError if it cannot be made."""
    module, _, attribute = ENVIRONMENTS[type(table)].partition(":")
    try:
        factory: Callable[[RolloutSettings, Any], Environment] = getattr(import_module(module), attribute)
        environment = factory(settings, table)
        stop = environment.stop
    except Exception as error:  # an environment is a program of its own
        raise InvalidInputError(f"the environment {table.type!r} cannot be made: {in_words(error)}") from error
    if not isinstance(stop, tuple) or not all(isinstance(text, str) and text for text in stop):
        raise InvalidInputError(f"the environment {table.type!r} has stop texts that are none: {stop!r:.80}")
    return environment


def environment_of(prompt: Prompt, default: EnvironmentBase | None) -> EnvironmentBase | None:
    """The environment of a prompt; the recipe's is the default.

    Keys that this version does not know are ignored. InvalidInputError: the prompt names a kind that it does not know.
    """
    if not prompt.HasField("environment_json"):
        return default
    if not prompt.environment_json:
        return None
    try:
        return _TABLE.validate_json(prompt.environment_json, extra="ignore")
    except ValidationError as error:
        detail = error.errors()[0]
        raise InvalidInputError(f"the environment of prompt {prompt.id}: {detail['msg']}") from error
