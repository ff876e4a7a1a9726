"""Names of values, and equations that only name one: `x = e`, `f(x) = e`, `|AB| = e`, `x = a = b`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.reward.equality.brackets import split
from services.reward.equality.numbers import read_number
from services.reward.equality.sequences import JOINT, sequence_of

_NAME = re.compile(
    r"^((?:\\angle ?)?(?:[a-zA-Z]|\\[a-z]+|[A-Z]{2,3})(?:_(?:\{[^{}]*\}|\w))?'*(?:\^\{-1\})?)(?:\(([^()=]{1,20})\))?$"
)
_TUPLE_NAME = re.compile(r"^\(([a-zA-Z](?:_\w)?(?:,[a-zA-Z](?:_\w)?)+)\)$")
# Names of quantities that are no letter: |AB|, AB:CD, AB/CD, \frac{dy}{dx}, \sin A, P(X=1), S_{ABC}:S.
_SEGMENT = r"(?:\\triangle ?|\\overline\{)?(?:[A-Z]{1,5}|[a-zA-Z])(?:_(?:\{\w+\}|\w))?'?\}?"
_QUANTITY = re.compile(
    rf"^(?:\|[A-Z]{{2}}\||{_SEGMENT}(?::{_SEGMENT})+|{_SEGMENT}/{_SEGMENT}|\\frac\{{{_SEGMENT}\}}\{{{_SEGMENT}\}}"
    r"|\\frac\{d(?:\^2)? ?[a-z]?\}\{d ?[a-z](?:\^2)?\}|d[a-z]/d[a-z]|[PE]\([^()]{1,30}\)"
    r"|\\(?:sin|cos|tan|cot)(?:\\angle ?)?[A-Z]{1,3}"
    r"|\\text\{[^{}]*\}|[A-Za-z]{4,}(?: [A-Za-z]+){0,2})$"
)
_APPROXIMATE = re.compile(r"\\approx|\\simeq|\\sim(?![a-z])")


def without_approximation(text: str) -> str:
    """`e \\approx 0.3` commits to e; `x \\approx 0.3` to 0.3."""
    parts = [part.strip() for part in _APPROXIMATE.split(text)]
    if len(parts) == 1 or not parts[0]:
        return parts[-1] if len(parts) > 1 else text
    return f"{parts[0]}={parts[1]}" if _NAME.match(parts[0]) and not read_number(parts[0]) else parts[0]


def split_name(text: str) -> tuple[str | None, str]:
    r"""`f(x)` and `e` of `f(x) = e`; None and the text if it is no such equation. Of `x = a = b`, b is the value. A
    name holds for a list behind it: `n = 1, 2`."""
    name, *values = split(text, "=")
    found, value = bool(values), "=".join(values)
    if r"\mapsto" in text or (r"\to" in text and "=" not in text and "lim" not in text):
        name, value = (part.strip() for part in re.split(r"\\mapsto|\\to", text, maxsplit=1))
        name, found = f"f({name})", True
    if not found or not value or re.search(r"[<>]|\\[lgn]e(?![a-z])", name):
        return None, text
    is_name = (_NAME.match(name) and not _is_function_word(name)) or _TUPLE_NAME.match(name)
    if not is_name and not (_QUANTITY.match(name) and len(values) == 1):
        return None, text
    if len(values) > 1:
        if len(split(value, ",;")) > 1 or JOINT.search(value):
            return None, text
        value = values[-1]
    return name, value.strip()


def _is_function_word(name: str) -> bool:
    return re.match(r"^\\(?:sin|cos|tan|log|ln|exp|frac|sqrt|sum|int|lim|pi|infty|le|ge|ne|pm)", name) is not None


def renamed(name: str, other_name: str, other: str) -> str | None:
    """The other value in the names of the first; None if the two are names of different things."""
    left, right = _NAME.match(name), _NAME.match(other_name)
    if name == other_name:
        return other
    if left is None or right is None:
        return None
    is_function, is_other = bool(left[2]), bool(right[2])
    if is_function and is_other:
        old, new = right[2].split(","), left[2].split(",")
        if len(old) != len(new) or any(read_number(part) for part in old + new):
            return None
        return rename(other, old, new)
    return other if (is_function and other_name == "y") or (is_other and name == "y") else None


def rename(expression: str, old: Sequence[str], new: Sequence[str]) -> str:
    """Replaces variables of one letter by others, all at once."""
    names = dict(zip(old, new, strict=True))
    return re.sub(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])", lambda match: names.get(match[0], match[0]), expression)


def value_of(text: str) -> str:
    """The text without the name that it gives its value."""
    return split_name(text)[1]


def assignments(parts: Sequence[str]) -> dict[str, str]:
    """`x = 1, y = 2` by name; empty for anything else, and where a name comes twice."""
    if len(parts) < 2 and not (parts and _TUPLE_NAME.match(parts[0].partition("=")[0].strip())):
        return {}
    if len(parts) == 1:
        name, _, value = parts[0].partition("=")
        sequence, names = sequence_of(value.strip()), name.strip()[1:-1].split(",")
        return dict(zip(names, sequence[1], strict=True)) if sequence and len(sequence[1]) == len(names) else {}
    pairs = [split_name(part) for part in parts]
    named = {name: value for name, value in pairs if name is not None}
    return named if len(named) == len(parts) else {}


def solutions(text: str) -> list[str] | None:
    """`p = 5, q = 2; p = 7, q = 2` as points; None if it is no list of several solutions in several unknowns."""
    pieces = [piece for part in split(text, ";") for piece in re.split(r"\s*(?:\\text\{ ?or ?\}|\bor\b|或)\s*", part)]
    solutions = [assignments(split(piece.strip("() "), ",")) for piece in pieces]
    names = solutions[0].keys()
    if len(solutions) < 2 or not names or any(solution.keys() != names for solution in solutions):
        return None
    return [f"({','.join(solution[name] for name in sorted(names))})" for solution in solutions]
