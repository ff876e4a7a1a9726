"""Says what a run needs beside a master, a trainer, rollout and reward workers: asked of its recipe, and of nothing
else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from perilune.recipe import EnvironmentBase, Recipe, RowPrompts
from perilune.recipe.environments import KINDS

_FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<function>[^\W\d]\w*)")
_ADDRESS = re.compile(r"\S+:\d{1,5}")


@dataclass(frozen=True)
class Needs:
    """Services that only some runs need."""

    sandbox: bool = False  # a grader or an environment executes programs
    teacher: str | None = None  # the model that says how likely it finds what the policy wrote, if it is served here
    plugins: Mapping[str, str] = field(default_factory=dict)  # graders of one's own: HOST:PORT, or FILE.py:FUNCTION


def environment_kinds(recipe: Recipe) -> set[type[EnvironmentBase]]:
    """The kinds of environment that a run may use: the recipe's own, and those that its prompts may name."""
    own = {type(recipe.rollout.environment)} if recipe.rollout.environment else set()
    named = recipe.prompts.environments if isinstance(recipe.prompts, RowPrompts) else []
    return own | {KINDS[name] for name in named}


def needs(recipe: Recipe) -> Needs:
    """The services that a recipe's graders and environments need."""
    graders = recipe.reward.graders
    return Needs(
        sandbox=any(grader.name == "code" for grader in graders)
        or any(kind.needs_sandbox for kind in environment_kinds(recipe)),
        teacher=recipe.teacher.model if recipe.teacher and not recipe.teacher.address else None,
        plugins={grader.name: grader.plugin for grader in graders if grader.plugin is not None},
    )


def function_of(place: str) -> tuple[str, str] | None:
    """The file and the function that a plug-in is, if it is no address.

    >>> function_of("graders.py:polite"), function_of("127.0.0.1:7100")
    (('graders.py', 'polite'), None)
    """
    found = _FUNCTION.fullmatch(place)
    return (found["file"], found["function"]) if found else None


def is_address(place: str) -> bool:
    """True if a plug-in is given as an address, not as a function."""
    return _ADDRESS.fullmatch(place) is not None
