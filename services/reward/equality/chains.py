"""Chains of equalities whose parts have different values: `x = 2 = 3` says nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

from services.reward.equality import formulas
from services.reward.equality.brackets import split, split_at
from services.reward.equality.numbers import Number, read_number
from services.reward.equality.regions import RELATION
from services.reward.equality.units import split_quantity

_EQUALS = re.compile(r"=|\\approx|\\simeq")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Letters that name things, functions of nothing known, angles whose unit is left out, logarithms without their base.
_NO_VALUE = re.compile(
    r"^(?!\\pi$)\\?[a-zA-Z]+(?:_\{?\w+\}?)?$|[fgh]\(|\\(?:log|arg)(?!_)|\\[bp]?mod|\bmod|^-?\d*i$"
    r"|\\(?:sin|cos|tan|cot|sec|csc)(?:\^\d)? ?\(?\{?\d+(?:\.\d+)?(?!\^?\\circ|\\degree|\d|\\pi|\.|/)"
)
_FUNCTION = re.compile(r"^[a-zA-Z](?:_\w)?\(([a-zA-Z])\)$")
_LETTER = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])")
CLOSE = Fraction(1, 20)  # of an approximation, and of a unit converted to a round number

Compare = Callable[[str, str], "bool | None"]


def contradicts_itself(text: str, equal: Compare) -> bool:
    """Tests whether an answer has a chain of equalities with two parts that differ. `equal` compares two values."""
    if "=" not in text and "approx" not in text and "simeq" not in text:
        return False
    return any(_is_false(part, equal) for part in split(_THOUSANDS.sub("", text), ",;"))


def _is_false(chain: str, equal: Compare) -> bool:
    parts, signs = split_at(chain, _EQUALS)
    if len(parts) < 2 or RELATION.search(chain) or r"\ne" in chain or "|" in chain:
        return False
    function = _FUNCTION.match(parts[0])
    if function and any(_are_different(a, b, function[1]) for a, b in pairwise(parts[1:])):
        return True
    known = [(part, signs[max(place - 1, 0)] == "=") for place, part in enumerate(parts) if _is_constant(part)]
    return any(_contradict(a, b, exactly, equal) for (a, _), (b, exactly) in pairwise(known))


def _is_constant(part: str) -> bool:
    return bool(part) and not _NO_VALUE.search(part) and formulas.is_constant(split_quantity(part)[0])


def _are_different(left: str, right: str, variable: str) -> bool:
    """Tests whether two formulas of the same variable alone are not identical."""
    if {*_LETTER.findall(left)} != {variable} or {*_LETTER.findall(right)} != {variable}:
        return False
    return formulas.equal(left, right) is False and formulas.equal(right, left) is False


def _contradict(left: str, right: str, exactly: bool, equal: Compare) -> bool:
    if equal(left, right) is not False or equal(right, left) is not False:
        return False
    (one, unit), (other, other_unit) = split_quantity(left), split_quantity(right)
    numbers = read_number(one), read_number(other)
    if numbers[0] and numbers[1] and unit == other_unit and _rounds(numbers[0], numbers[1]):
        return False
    if exactly and unit == other_unit:
        return True
    return not _are_close(left, right)


def _rounds(one: Number, other: Number) -> bool:
    """Tests whether one decimal is the other with fewer places."""
    coarser = max(one.half_unit or 0, other.half_unit or 0)
    return bool(one.half_unit and other.half_unit) and abs(one.value - other.value) <= coarser


def _are_close(left: str, right: str) -> bool:
    values = []
    for text in (left, right):
        value, unit = split_quantity(text)
        number = formulas.approximate(value)
        if number is None:
            return True  # nothing can be said against it
        values.append(number * unit.factor + unit.offset if unit else number)
    return abs(values[0] - values[1]) <= CLOSE * max(map(abs, values)) or (
        values[1].denominator == 1 and abs(values[0] - values[1]) <= Fraction(1, 2)
    )
