"""What a run needs beside a master, a trainer, rollout and reward workers: asked of its recipe, and of nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from perilune.recipe import Recipe

_FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<function>[^\W\d]\w*)")
_ADDRESS = re.compile(r"\S+:\d{1,5}")


@dataclass(frozen=True)
class Needs:
    """Services that only some runs need."""

    sandbox: bool = False  # a grader or an environment executes programs
    plugins: Mapping[str, str] = field(default_factory=dict)  # graders of one's own: HOST:PORT, or FILE.py:FUNCTION


def needs(recipe: Recipe) -> Needs:
    environment = recipe.rollout.environment
    graders = recipe.reward.graders
    return Needs(
        sandbox=any(grader.name == "code" for grader in graders)
        or (environment is not None and environment.name == "sandbox"),
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
    return _ADDRESS.fullmatch(place) is not None
