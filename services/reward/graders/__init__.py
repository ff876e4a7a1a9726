"""The graders. A new one is one file here and one row of the table."""

from __future__ import annotations

from typing import Any

from perilune.errors import InvalidInputError
from services.reward.graders import (
    choice,
    code,
    exact,
    format,
    instructions,
    json,
    judge,
    length,
    math,
    numeric,
    outcome,
    regex,
    repetition,
)
from services.reward.graders.grader import Grader, nearest

GRADERS: dict[str, Grader[Any]] = {
    grader.name: grader
    for grader in (
        exact.GRADER,
        numeric.GRADER,
        math.GRADER,
        choice.GRADER,
        code.GRADER,
        regex.GRADER,
        json.GRADER,
        instructions.GRADER,
        format.GRADER,
        length.GRADER,
        repetition.GRADER,
        judge.GRADER,
        outcome.GRADER,
    )
}


def find_grader(name: str) -> Grader[Any]:
    """A grader by name. InvalidInputError names the nearest one that exists."""
    if name not in GRADERS:
        raise InvalidInputError(f"there is no grader {name!r}; {nearest(name, list(GRADERS))}")
    return GRADERS[name]
