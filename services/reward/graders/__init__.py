"""The graders. A new one is one file here and one row of the table."""

from __future__ import annotations

from typing import Any

from perilune.errors import InvalidInputError
from services.reward.graders import exact, format, math, numeric
from services.reward.graders.grader import Grader, nearest

GRADERS: dict[str, Grader[Any]] = {
    grader.name: grader
    for grader in (
        exact.GRADER,
        numeric.GRADER,
        math.GRADER,
        format.GRADER,
    )
}


def find_grader(name: str) -> Grader[Any]:
    """A grader by name. InvalidInputError names the nearest one that exists."""
    if name not in GRADERS:
        raise InvalidInputError(f"there is no grader {name!r}; {nearest(name, list(GRADERS))}")
    return GRADERS[name]
