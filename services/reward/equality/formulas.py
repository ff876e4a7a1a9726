"""Decides whether two formulas are equal, as far as that can be decided in a moment and without sympy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from services.reward.equality import evaluation
from services.reward.equality.evaluation import UndefinedError, UnknownError
from services.reward.equality.expression import Node, UnreadableError, parse
from services.reward.equality.numbers import read_number
from services.reward.remembered import remembered

_DEGREES = re.compile(r"(\d+(?:\.\d+)?|[a-zA-Z])\^\\circ")
_CONSTANT_OF_INTEGRATION = re.compile(r"(?<=\+)[Kc]$|^[Kc](?=\+)")


class NoValueError(Exception):
    """A formula that cannot be read, or evaluated here."""


def equal(reference: str, answer: str) -> bool | None:
    """Tests whether both have the same value; None if one of them cannot be read, or evaluated. TooLargeError."""
    wanted, found = _read(reference), _read(_with_same_letters(reference, answer))
    if wanted is None or found is None:
        return None
    rounded = read_number(reference)
    try:
        if rounded and rounded.half_unit is not None:
            value = evaluation.constant(found)
            return value is not None and evaluation.distance(value, rounded.value) <= evaluation.high(rounded.half_unit)
        return evaluation.same_value(wanted, found)
    except UnknownError:
        return None
    except UndefinedError:
        return False


def same_relation(reference: tuple[str, str], answer: tuple[str, str], directed: bool) -> bool | None:
    """Tests whether two equations, or inequalities with the smaller side first, say the same."""
    nodes = [_read(side) for side in (*reference, *answer)]
    if None in nodes:
        return None
    a, b, c, d = (node for node in nodes if node is not None)
    try:
        return evaluation.same_relation((a, b), (c, d), directed)
    except UnknownError:
        return None


def same_progression(reference: str, answer: str, parameter: str) -> bool | None:
    """Tests whether two formulas linear in a parameter have the same values when it runs through the whole numbers."""
    wanted, found = _read(reference), _read(answer)
    if wanted is None or found is None:
        return None
    try:
        return evaluation.same_progression(wanted, found, parameter)
    except (UndefinedError, UnknownError):
        return None


def sign(left: str, right: str) -> int | None:
    """-1, 0 or 1 for how two constants stand to each other; None if they are none."""
    if left == right:
        return 0
    values = []
    for text in (left, right):
        node = _read(text)
        value = None if node is None else evaluation.constant(node)
        if value is None or not evaluation.is_real(value):
            return None
        values.append(value)
    return evaluation.order(*values)


def exact(text: str) -> Fraction | None:
    """The rational value of a constant; None if it has none."""
    node = _read(text)
    value = None if node is None else evaluation.constant(node)
    return value if isinstance(value, Fraction) else None


def exact_at(text: str, point: Mapping[str, Fraction]) -> Fraction | None:
    """The rational value of a formula at a point; None if it has none there."""
    node = _read(text)
    if node is None or not evaluation.unknowns(node) <= point.keys():
        return None
    try:
        value = evaluation.evaluate(node, point)
    except (UndefinedError, UnknownError):
        return None
    return value if isinstance(value, Fraction) else None


def approximate(text: str) -> Fraction | None:
    """The value of a real constant, to some fifteen digits; None if it has none."""
    node = _read(text)
    value = None if node is None else evaluation.constant(node)
    if value is None or isinstance(value, Fraction):
        return value
    number = float(evaluation.real(value)) if evaluation.is_real(value) else math.inf
    return Fraction(number) if math.isfinite(number) else None


def same_at(reference: str | None, answer: str | None, point: Mapping[str, Fraction]) -> bool:
    """Tests whether two formulas have the same value at a point, or neither has one. NoValueError."""
    wanted, found = (None if text is None else _value_at(text, point) for text in (reference, answer))
    if wanted is None or found is None:
        return wanted is found
    return evaluation.order(wanted, found) == 0 if evaluation.is_real(wanted) and evaluation.is_real(found) else False


def _value_at(text: str, point: Mapping[str, Fraction]) -> Any:
    node = _read(text)
    if node is None:
        raise NoValueError(text)
    others = {name: Fraction(sum(map(ord, name)), 7) for name in evaluation.unknowns(node)}
    try:
        return evaluation.evaluate(node, {**others, **point})
    except UndefinedError:
        return None
    except UnknownError as error:
        raise NoValueError(text) from error


def is_constant(text: str) -> bool:
    """True if the text is a formula without unknowns."""
    node = _read(text)
    return node is not None and not evaluation.unknowns(node)


def is_scalar(text: str) -> bool:
    """True if the text can be read as one formula."""
    return _read(text) is not None


@remembered  # one reference is compared with many answers
def _read(text: str) -> Node | None:
    try:
        return parse(_DEGREES.sub(r"(\\frac{\1\\pi}{180})", text))
    except UnreadableError:
        return None


def _with_same_letters(reference: str, answer: str) -> str:
    """j for i, and another letter for the constant of integration, where the reference has the usual one."""
    if re.search(r"(?<![a-zA-Z\\])i(?![a-zA-Z])", reference) and "i" not in answer:
        answer = re.sub(r"(?<=\d)j(?![a-zA-Z])", "i", answer)
    if re.search(r"\+C$|^C\+", reference):
        answer = _CONSTANT_OF_INTEGRATION.sub("C", answer)
    return answer
