"""Decides whether two expressions are equal, by algebra. Can take for ever and any memory: call it in a killable
process.

math-verify's LaTeX parser reads them; it evaluates no code. The comparison is our own, because math-verify's rounds
exact values: to it 1/2004! and 1/2006! are the same.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import latex2sympy
from sympy.core.relational import Relational

from services.reward.equality.numbers import read_number

_DECIMAL = re.compile(r"(?<![\w.])(\d*)\.(\d+)(?![\w.])")
_DEGREES = re.compile(r"(\d+)\^\\circ")
_ADJACENT = re.compile(r"(?<=\))\s*(?=\()|(?<=\d)\s*(?=\()")
_NUM_DIGITS = 60

Expression = Any  # sympy's Basic or MatrixBase: its annotations are too few to check by
_CONSTANTS: dict[Any, Any] = {sympy.Symbol("i"): sympy.I}


def symbolic_equal(reference: str, answer: str) -> bool | None:
    """Tests whether both have the same value; None if the reference cannot be read, or algebra does not tell."""
    wanted, found = _read(reference), _read(answer)
    if wanted is None:
        return None
    if found is None:
        return False
    try:
        return _compare(wanted, found, reference, answer)
    except (TypeError, ValueError, NotImplementedError, AttributeError, ArithmeticError):
        return None  # sympy has no answer for the two


def _compare(wanted: Expression, found: Expression, reference: str, answer: str) -> bool | None:
    rounded = read_number(reference)
    if rounded and rounded.half_unit is not None and not _DECIMAL.search(answer):
        return _rounds_to(found, rounded.value, rounded.half_unit)
    return _same(wanted, found)


def _read(text: str) -> Expression | None:
    """The expression with its decimals as exact fractions; None if it is no mathematics."""
    text = _DECIMAL.sub(lambda match: rf"\frac{{{match[1]}{match[2]}}}{{1{'0' * len(match[2])}}}", text)
    text = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    text = _ADJACENT.sub(r"\\cdot ", text)
    try:
        expression = latex2sympy(text, normalization_config=None)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 the parser raises bare Exception, and much else, for what is no LaTeX
        return None
    if isinstance(expression, sympy.MatrixBase | sympy.Basic):
        return expression.subs(_CONSTANTS)
    return None


def _same(wanted: Expression, found: Expression) -> bool | None:
    if wanted.has(sympy.zoo, sympy.nan) or found.has(sympy.zoo, sympy.nan):
        return False  # 1/0 has no value to be equal
    if wanted == found:
        return True
    if isinstance(wanted, sympy.MatrixBase) or isinstance(found, sympy.MatrixBase):
        return _same_matrix(wanted, found)
    if isinstance(wanted, Relational) or isinstance(found, Relational):
        return _same_relation(wanted, found)
    if not (isinstance(wanted, sympy.Expr) and isinstance(found, sympy.Expr)):
        return False
    return _is_zero(wanted, found)


def _same_matrix(wanted: Expression, found: Expression) -> bool | None:
    if not (isinstance(wanted, sympy.MatrixBase) and isinstance(found, sympy.MatrixBase)):
        return False
    if wanted.shape != found.shape:
        return False
    cells = [_same(left, right) for left, right in zip(wanted.flat(), found.flat(), strict=True)]
    return False if False in cells else None if None in cells else True


def _same_relation(wanted: Expression, found: Expression) -> bool | None:
    """The same kind of relation between sides that differ by a factor, which must be positive for an inequality."""
    if not (isinstance(wanted, Relational) and isinstance(found, Relational)):
        return False
    if wanted.func != found.func:
        found = found.reversed
    if wanted.func != found.func:
        return False
    ratio = sympy.simplify((wanted.lhs - wanted.rhs) / (found.lhs - found.rhs))
    if not ratio.is_number or ratio.is_zero or not ratio.is_finite:
        return False
    return True if isinstance(wanted, sympy.Eq | sympy.Ne) else bool(ratio.is_positive)


def _is_zero(wanted: Expression, found: Expression) -> bool | None:
    if wanted.is_infinite or found.is_infinite:
        return False  # equal infinities were equal before
    difference = wanted.doit() - found.doit()
    if difference.is_zero:
        return True
    if difference.is_Rational:
        return False
    if difference.is_number and _differs(difference):
        return False
    if sympy.expand(difference) == 0 or sympy.simplify(difference) == 0:
        return True
    verdict = difference.equals(0)
    return None if verdict is None else bool(verdict)


def _differs(number: Expression) -> bool:
    """Tests whether a number is certainly not zero: sympy knows its leading digits."""
    value = number.evalf(_NUM_DIGITS)
    return bool(value.is_number and value.is_comparable and value._prec > 1 and value != 0)


def _rounds_to(found: Expression, value: Fraction, half_unit: Fraction) -> bool | None:
    if not (isinstance(found, sympy.Expr) and found.is_number):
        return False
    difference = sympy.Abs(found.doit() - sympy.Rational(value.numerator, value.denominator))
    bound = sympy.Rational(half_unit.numerator, half_unit.denominator)
    return bool((difference - bound).evalf(_NUM_DIGITS) <= 0)
