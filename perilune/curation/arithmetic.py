"""Questions that are nothing but arithmetic: their value is known without a model, and tells a wrong reference."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from perilune.curation.text import plain, without_label

MAX_LENGTH = 200  # characters of a question: longer ones are more than arithmetic, and slow to match
MAX_BITS = 4096  # of a numerator or denominator on the way
_ASKS = re.compile(
    r"(?:what is|what's|calculate|compute|evaluate|find|work out|determine|simplify|solve|give|state|how much is)?"
    r"\s*[:,]?\s*(?:the )?(?:exact )?(?:(?:value|result|sum|product|difference|quotient) of )?:?"
    r"\s*([\d.+\-*/^()\s]+?)\s*(?:=\s*\??)?\s*[?.]*\s*"
)
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def contradicted(question: str, answer: str) -> str:
    """The value of a question of pure arithmetic whose answer is another number; empty where nothing is wrong.

    An answer may be rounded, and a quotient be given as its whole part.

    >>> contradicted("What is 12 × (3 + 4)?", "85"), contradicted("10 / 4 =", "2.5"), contradicted("1/3?", "0.33")
    ('84', '', '')
    """
    given = _number(answer)
    readings = (value_of(text) for text in (without_label(question), question))  # "- 3 + 8": an item or a number
    values = [value for value in readings if value is not None]
    if given is None or not values or any(_agree(given, value, answer) for value in values):
        return ""
    return str(values[0])


def value_of(question: str) -> Fraction | None:
    """The value of a question that asks for that of an expression of numbers, exact; None of any other question."""
    if len(question) > MAX_LENGTH:
        return None
    text = " ".join(_GROUPED.sub("", plain(question)).replace("$", " ").split())
    match = _ASKS.fullmatch(text) if re.search(r"[a-z=?]", text) else None  # a date alone asks for nothing
    expression = match[1].strip() if match else ""
    if not re.search(r"[\d)]\s*[+\-*/^]", expression):
        return None
    try:
        return _value(ast.parse(expression.replace("^", "**"), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    """ValueError: it is no arithmetic, or grows too large."""
    match node:
        case ast.Constant(value=int() | float()):
            value = Fraction(ast.unparse(node))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            value = _value(operand)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            value = _power(_value(left), _value(right))
        case ast.BinOp(op=sign, left=left, right=right) if type(sign) in _OPERATORS:
            value = _OPERATORS[type(sign)](_value(left), _value(right))
        case _:
            raise ValueError(f"{ast.unparse(node)} is no arithmetic")
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ValueError("the value is too large")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator != 1 or size * abs(exponent.numerator) > MAX_BITS:
        raise ValueError("no power of whole numbers, or too large")
    return base**exponent.numerator


def _number(answer: str) -> Fraction | None:
    """The number that an answer is; None of any other answer, and of a longer one."""
    if len(answer) > MAX_LENGTH:
        return None
    said = _GROUPED.sub("", plain(answer)).replace("$", " ").strip(" .()")
    try:
        return Fraction(re.sub(r"\)\s*/\s*\(", "/", said))
    except (ValueError, ZeroDivisionError):
        return None


def _agree(given: Fraction, value: Fraction, written: str) -> bool:
    """Tests whether a number is a value, the value as it was rounded, or the whole part of a quotient."""
    if given == value or (given.denominator == 1 and given == value.numerator // value.denominator):
        return True
    decimals = re.search(r"\.(\d+)\D*$", written)
    unit = Fraction(1, 10 ** len(decimals[1])) if decimals else Fraction(0)
    return abs(given - value) <= max(unit, abs(value) / 1000 if decimals or value.denominator != 1 else 0)
