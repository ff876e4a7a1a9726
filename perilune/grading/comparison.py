"""Comparison of a program's output with what was expected. Pure functions; the kind of comparison is always named.

Everything here reads what a hostile program wrote: time is linear in the text (unordered lines: n log n), and nothing
is evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from perilune.api.sandbox.v1.sandbox_pb2 import Comparison
from perilune.errors import InvalidInputError

MAX_SHOWN_CHARS = 200
# Where a comparison by floats gives no tolerance of its own.
DEFAULT_TOLERANCE = 1e-9

_EXACT_FLOATS = 2.0**53  # below it, every integer is a float
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")
_DIGITS = re.compile(rb"[+-]?\d+")
_Unit = Sequence[Any]


def difference(comparison: Comparison, expected: bytes, actual: bytes) -> str | None:
    """None if stdout is what was expected, else what differs, in a sentence.

    InvalidInputError where the comparison is none for text.
    """
    if comparison.ignore_case:
        expected, actual = expected.lower(), actual.lower()
    kind = comparison.kind or Comparison.KIND_LINES
    if kind not in _TEXT:
        raise InvalidInputError(f"stdout cannot be compared by {Comparison.Kind.Name(kind)}; {_known(_TEXT)}")
    return _TEXT[kind](comparison, expected, actual)


def value_difference(comparison: Comparison, expected: Any, actual: Any) -> str | None:
    """None if a returned JSON value is what was expected, else what differs.

    Integers and floats of the same value are equal; booleans are not numbers. Floats are equal within the tolerance,
    integers have none.
    """
    kind = comparison.kind or Comparison.KIND_JSON
    if kind != Comparison.KIND_JSON:
        raise InvalidInputError(f"values cannot be compared by {Comparison.Kind.Name(kind)}; use KIND_JSON")
    try:
        where = _value_difference(comparison, expected, actual, "")
    except RecursionError:
        where = ""  # deeper than any expected value
    return None if where is None else f"{where or 'value'}: expected {_shown(expected)}, got {_shown(actual)}"


def _exact(_: Comparison, expected: bytes, actual: bytes) -> str | None:
    if expected == actual:
        return None
    at = next(
        (i for i, (a, b) in enumerate(zip(expected, actual, strict=False)) if a != b), min(len(expected), len(actual))
    )
    return f"byte {at}: expected {_excerpt(expected, at)}, got {_excerpt(actual, at)}"


def _lines(_: Comparison, expected: bytes, actual: bytes) -> str | None:
    return _first_difference("line", _clean_lines(expected), _clean_lines(actual))


def _tokens(_: Comparison, expected: bytes, actual: bytes) -> str | None:
    return _first_difference("word", expected.split(), actual.split())


def _floats(comparison: Comparison, expected: bytes, actual: bytes) -> str | None:
    def same(a: bytes, b: bytes) -> bool:
        if a == b:
            return True
        if _DIGITS.fullmatch(a) and _DIGITS.fullmatch(b):
            return _integer(a) == _integer(b)
        return bool(_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)) and _close(comparison, a, b)

    return _first_difference("word", expected.split(), actual.split(), same)


def _integer(word: bytes) -> bytes:
    """An integer in the one way to write it, however long; digits behind a leading zero stay a string of digits."""
    sign, digits = (b"-" if word[:1] == b"-" else b""), word.lstrip(b"+-")
    return b"0" if digits == b"0" else sign + digits


def _unordered_lines(_: Comparison, expected: bytes, actual: bytes) -> str | None:
    return _first_difference("sorted line", sorted(_clean_lines(expected)), sorted(_clean_lines(actual)))


_TEXT: dict[Comparison.Kind.ValueType, Callable[[Comparison, bytes, bytes], str | None]] = {
    Comparison.KIND_EXACT: _exact,
    Comparison.KIND_LINES: _lines,
    Comparison.KIND_TOKENS: _tokens,
    Comparison.KIND_FLOATS: _floats,
    Comparison.KIND_UNORDERED_LINES: _unordered_lines,
}


def check(comparison: Comparison) -> None:
    """InvalidInputError where tolerances or the checker make no sense."""
    for tolerance in (comparison.relative_tolerance, comparison.absolute_tolerance):
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise InvalidInputError(f"a tolerance is a finite number that is not negative, not {tolerance}")
    if (comparison.kind == Comparison.KIND_CHECKER) != comparison.HasField("checker"):
        raise InvalidInputError("KIND_CHECKER needs a checker program, and no other kind has one")


def _first_difference(
    unit: str, expected: _Unit, actual: _Unit, same: Callable[[Any, Any], bool] = lambda a, b: a == b
) -> str | None:
    for at, (a, b) in enumerate(zip(expected, actual, strict=False), start=1):
        if not same(a, b):
            return f"{unit} {at}: expected {_excerpt(a)}, got {_excerpt(b)}"
    if len(expected) == len(actual):
        return None
    more, fewer = ("missing", expected) if len(expected) > len(actual) else ("too many", actual)
    at = min(len(expected), len(actual))
    return f"{unit} {at + 1}: {more}, {_excerpt(fewer[at])} ({len(expected)} expected, {len(actual)} given)"


def _clean_lines(text: bytes) -> list[bytes]:
    lines = [line.rstrip() for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _close(comparison: Comparison, expected: bytes, actual: bytes) -> bool:
    """Compares in decimal, so that large integers are not rounded into each other."""
    relative, absolute = _tolerances(comparison)
    try:
        a, b = Decimal(expected.decode()), Decimal(actual.decode())
        return abs(a - b) <= max(Decimal(absolute), Decimal(relative) * abs(a))
    except (InvalidOperation, OverflowError):
        return False


def _tolerances(comparison: Comparison) -> tuple[float, float]:
    given = (comparison.relative_tolerance, comparison.absolute_tolerance)
    return given if any(given) else (DEFAULT_TOLERANCE, DEFAULT_TOLERANCE)


def _value_difference(comparison: Comparison, expected: Any, actual: Any, where: str) -> str | None:
    """The path to the first difference, or None."""
    numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in (expected, actual)]
    if all(numbers):
        return None if _same_number(comparison, expected, actual) else where
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = [(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(expected, actual, strict=True))]
    elif isinstance(expected, dict) and isinstance(actual, dict) and expected.keys() == actual.keys():
        pairs = [(value, actual[key], f"{where}[{_short(repr(key))}]") for key, value in expected.items()]
    elif isinstance(expected, str) and isinstance(actual, str) and comparison.ignore_case:
        return None if expected.lower() == actual.lower() else where
    else:
        return None if type(expected) is type(actual) and expected == actual else where
    found = (_value_difference(comparison, a, b, path) for a, b, path in pairs)
    return next((path for path in found if path is not None), None)


def _same_number(comparison: Comparison, expected: float, actual: float) -> bool:
    if expected == actual:
        return True
    if _is_whole(expected) and _is_whole(actual) and (isinstance(expected, int) or isinstance(actual, int)):
        return False
    relative, absolute = _tolerances(comparison)
    try:
        return abs(expected - actual) <= max(absolute, relative * abs(expected))
    except OverflowError:
        return False


def _is_whole(number: float) -> bool:
    """True for a whole number: an integer, or a float that is one and holds its every digit."""
    return isinstance(number, int) or (abs(number) < _EXACT_FLOATS and number.is_integer())


def _excerpt(text: bytes, at: int = 0) -> str:
    start = max(0, at - 20)
    return _short(repr(text[start : start + MAX_SHOWN_CHARS].decode(errors="replace")))


def _shown(value: Any) -> str:
    try:
        return _short(repr(value))
    except RecursionError:
        return "a value nested too deeply to be shown"


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def _known(kinds: dict[Comparison.Kind.ValueType, Any]) -> str:
    return "use " + ", ".join(Comparison.Kind.Name(kind) for kind in kinds)
