"""Results of functions of text, kept for the next time: a few, and none that large texts were given for.

A caller decides the texts, so a cache has to be bounded by what it holds, and not by their number alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

MAX_RESULTS = 1024
MAX_CHARS = 4096  # of the texts in one call's arguments


def remembered(function: Callable[P, R]) -> Callable[P, R]:
    """The function with its last MAX_RESULTS results kept, but for calls with more than MAX_CHARS of text.

    Its arguments are hashable and positional.
    """
    kept: Callable[P, R] = lru_cache(MAX_RESULTS)(function)  # type: ignore[assignment]

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        is_small = _num_chars(args) <= MAX_CHARS
        return kept(*args, **kwargs) if is_small else function(*args, **kwargs)

    return call


def _num_chars(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_num_chars, value)) if isinstance(value, tuple) else 0
