"""Decides whether two formulas have the same value, by evaluating both: exactly where they are rational, else to 60
digits.

Formulas with unknowns are compared at a few points. Two different ones can agree at all of them only by an accident
that nobody meets; two equal ones differ at none where both are defined.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import mpmath

from services.reward.equality.expression import Node, TooLargeError

Value = Any  # Fraction, or a number of mpmath

_context: Any = mpmath.mp.clone()  # type: ignore[no-untyped-call]
_context.dps = 60
_TOLERANCE = _context.mpf(10) ** -45
_SURE_DIGITS = 400  # for constants that seem equal: 2 to the power of 1/2^{1000} is not 1
_SMALL = _context.mpf(10) ** -20
MAX_EXACT_BITS = 20_000
MAX_EXPONENT = 10**18
MAX_FACTORIAL = 1000  # exactly; up to MAX_GAMMA to 60 digits
MAX_GAMMA = 10**9
MAX_TERMS = 500
MAX_ARGUMENT = 10**25  # of sine and its like
# One row is one point: values for the unknowns in alphabetical order, going round. The first rows are positive, where
# roots and logarithms are real; the last are whole numbers, for what is defined on those alone.
_POINTS = [
    [Fraction(37, 29), Fraction(61, 23), Fraction(19, 31), Fraction(47, 41), Fraction(83, 59)],
    [Fraction(13, 17), Fraction(29, 37), Fraction(5, 19), Fraction(11, 47), Fraction(101, 67)],
    [Fraction(53, 11), Fraction(-43, 13), Fraction(-71, 7), Fraction(31, 9), Fraction(-17, 6)],
    [Fraction(-23, 10), Fraction(59, 14), Fraction(89, 12), Fraction(-67, 22), Fraction(41, 15)],
]
_WHOLE_POINTS = [[Fraction(n) for n in row] for row in ([5, 3, 7, 2, 11], [4, 9, 2, 6, 3], [7, 4, 5, 10, 2])]


class UndefinedError(Exception):
    """The formula has no value there."""


class UnknownError(Exception):
    """The formula has a part that has no value here."""


def same_value(reference: Node, answer: Node) -> bool | None:
    """Tests whether both formulas are equal wherever both are defined; None if no point tells. TooLargeError."""
    names = sorted(unknowns(reference) | unknowns(answer))
    if not names:
        return _same_constants(reference, answer)
    verdicts = _verdicts(reference, answer, names)
    return False if False in verdicts else True if len(verdicts) > 1 else None


def same_relation(left: tuple[Node, Node], right: tuple[Node, Node], directed: bool = False) -> bool | None:
    """Tests whether two equations say the same: the differences of their sides are the same but for a constant factor,
    which has to be positive in an inequality (`directed`)."""
    first, second = [("add", a, ("negative", b)) for a, b in (left, right)]
    names = sorted(unknowns(first) | unknowns(second))
    ratios: list[Value] = []
    for point in _points(names):
        try:
            a, b = evaluate(first, point), evaluate(second, point)
            if b == 0 or a == 0:
                if not _near(a, b):
                    return False
                continue
            ratios.append(_divide(a, b))
        except UndefinedError:
            continue
    if len(ratios) < min(2, len(names) + 1):
        return None
    if not all(_near(ratio, ratios[0]) for ratio in ratios):
        return False
    return not directed or (is_real(ratios[0]) and real(ratios[0]) > 0)


def same_progression(reference: Node, answer: Node, parameter: str) -> bool:
    """Tests whether `a + n b` and `c + n d` run through the same values for whole n. UnknownError for other
    unknowns."""
    wanted, found = ([evaluate(node, {parameter: Fraction(n)}) for n in range(3)] for node in (reference, answer))
    steps = []
    for values in (wanted, found):
        if not _near(_add(values[2], -values[1]), step := _add(values[1], -values[0])) or step == 0:
            return False
        steps.append(step)
    shift = _high(_divide(_add(wanted[0], -found[0]), steps[0]))
    return (_near(steps[0], steps[1]) or _near(steps[0], -steps[1])) and bool(
        abs(shift - _context.nint(shift)) < _SMALL
    )


def constant(node: Node) -> Value | None:
    """The value of a formula without unknowns; None if it has some, or no value."""
    if unknowns(node):
        return None
    try:
        return evaluate(node, {})
    except (UndefinedError, UnknownError):
        return None


def distance(value: Value, number: Fraction) -> Value:
    """The absolute difference of a value and a number, to the digits that are computed with."""
    return abs(_high(value) - _high(number))


def high(number: Fraction) -> Value:
    """A number to the digits that are computed with."""
    return _high(number)


def order(left: Value, right: Value) -> int:
    """-1, 0 or 1 for how two real values stand to each other."""
    return 0 if _near(left, right) else -1 if _high(real(left)) < _high(real(right)) else 1


def unknowns(node: Node) -> set[str]:
    """The names of a formula's free variables."""
    kind = node[0]
    if kind == "symbol":
        return set() if node[1] in ("e", "i") else {node[1]}
    if kind in ("sum", "product"):
        _, variable, low, high, body = node
        return unknowns(low) | unknowns(high) | (unknowns(body) - {variable})
    return set().union(*(unknowns(part) for part in node[1:] if isinstance(part, tuple)))


def _same_constants(reference: Node, answer: Node) -> bool | None:
    try:
        wanted = evaluate(reference, {})
    except UndefinedError:
        return None
    try:
        found = _evaluate_answer(answer, {})
    except UndefinedError:
        return False
    if found is None or not _near(_without_noise(wanted, reference, {}), _without_noise(found, answer, {})):
        return False
    if isinstance(wanted, Fraction) and isinstance(found, Fraction):
        return True
    if abs(_high(wanted)) > _context.mpf(10) ** _SURE_DIGITS:
        if reference == answer:
            return True
        raise TooLargeError("a number that no digits tell from the next")
    with _context.workdps(_SURE_DIGITS):
        difference = _add(evaluate(reference, {}), -evaluate(answer, {}))
        return bool(abs(difference) <= _context.mpf(10) ** (40 - _SURE_DIGITS) * max(1, abs(wanted)))


def _evaluate_answer(answer: Node, point: Mapping[str, Fraction]) -> Value | None:
    """Its value; None if that is too large to look at, and so no value that a reference has."""
    try:
        return evaluate(answer, point)
    except TooLargeError:
        return None


def _without_noise(value: Value, node: Node, point: Mapping[str, Fraction]) -> Value:
    """Zero where a tiny value is what rounding left of a zero, as in sin(pi): with more digits it is another."""
    if isinstance(value, Fraction) or value == 0 or abs(value) > _SMALL:
        return value
    with _context.workdps(2 * _context.dps):
        exacter = evaluate(node, point)
    return value if abs(exacter - value) < _SMALL * abs(value) else Fraction(0)


def _verdicts(reference: Node, answer: Node, names: list[str]) -> list[bool]:
    imaginary = _mentions_i(reference) or _mentions_i(answer)
    verdicts: list[bool] = []
    for points in (_points(names), _points(names, _WHOLE_POINTS)):
        for point in points:
            try:
                wanted, found = evaluate(reference, point), _evaluate_answer(answer, point)
            except UndefinedError:
                continue
            if found is None:
                return [False]
            wanted, found = _without_noise(wanted, reference, point), _without_noise(found, answer, point)
            if imaginary or (is_real(wanted) and is_real(found)):
                verdicts.append(_near(wanted, found))
                if not verdicts[-1]:
                    return verdicts
        if len(verdicts) > 1:
            break
    return verdicts


def _points(names: list[str], rows: Iterable[list[Fraction]] = _POINTS) -> Iterator[Mapping[str, Fraction]]:
    for row in rows:
        yield {name: value + index // len(row) for index, (name, value) in enumerate(zip(names, itertools.cycle(row)))}


def _mentions_i(node: Node) -> bool:
    return node == ("symbol", "i") or any(_mentions_i(part) for part in node[1:] if isinstance(part, tuple))


def _near(left: Value, right: Value) -> bool:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    left, right = _high(left), _high(right)
    if _context.isinf(left) or _context.isinf(right):
        return bool(left == right)
    return bool(abs(left - right) <= _TOLERANCE * max(abs(left), abs(right)))


def is_real(value: Value) -> bool:
    """Tests whether a value has no imaginary part."""
    return isinstance(value, Fraction) or abs(_context.im(value)) <= _TOLERANCE * abs(value)


def real(value: Value) -> Value:
    """A value without its imaginary part."""
    return value if isinstance(value, Fraction) else _context.re(value)


def _high(value: Value) -> Value:
    if not isinstance(value, Fraction):
        return value
    return _context.mpf(value.numerator) / value.denominator


# Evaluation.


def evaluate(node: Node, point: Mapping[str, Fraction]) -> Value:
    """The value at a point. UndefinedError, UnknownError, TooLargeError."""
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind == "symbol":
        return _symbol(node[1], point)
    if kind == "pi":
        return +_context.pi
    if kind == "infinity":
        return _context.inf
    if kind in ("sum", "product"):
        return _series(node, point)
    if kind == "call":
        return _call(node[1], [evaluate(part, point) for part in node[2:]])
    try:
        return _OPERATIONS[kind](*(evaluate(part, point) for part in node[1:]))
    except (ZeroDivisionError, ValueError, ArithmeticError) as error:
        raise UndefinedError(str(error)) from error


def _symbol(name: str, point: Mapping[str, Fraction]) -> Value:
    if name in point:
        return point[name]
    if name == "e":
        return +_context.e
    if name == "i":
        return _context.j
    raise UnknownError(name)


def _add(a: Value, b: Value) -> Value:
    return a + b if isinstance(a, Fraction) and isinstance(b, Fraction) else _high(a) + _high(b)


def _multiply(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction) and _bits(a) + _bits(b) < MAX_EXACT_BITS:
        return a * b
    return _high(a) * _high(b)


def _divide(a: Value, b: Value) -> Value:
    if b == 0:
        raise UndefinedError("division by zero")
    if isinstance(a, Fraction) and isinstance(b, Fraction) and _bits(a) + _bits(b) < MAX_EXACT_BITS:
        return a / b
    return _high(a) / _high(b)


def _power(a: Value, b: Value) -> Value:
    if isinstance(b, Fraction) and b.denominator == 1 and abs(b) <= MAX_EXPONENT:
        if a == 0 and b < 0:
            raise UndefinedError("division by zero")
        exact = isinstance(a, Fraction) and _bits(a) * abs(b) <= MAX_EXACT_BITS
        return a ** int(b) if exact else _high(a) ** int(b)
    if abs(b) > MAX_EXPONENT:
        raise TooLargeError("a power of that size")
    if a == 0:
        return _zero_power(b)
    return _context.power(_high(a), _high(b))


def _zero_power(b: Value) -> Value:
    if is_real(b) and real(b) > 0:
        return Fraction(0)
    raise UndefinedError("a power of zero")


def _root(a: Value, degree: Value) -> Value:
    odd = isinstance(degree, Fraction) and degree.denominator == 1 and degree % 2 == 1
    if odd and is_real(a) and real(a) < 0:
        return -_power(-real(a), 1 / degree)
    return _power(a, _divide(Fraction(1), degree))


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


_OPERATIONS: dict[str, Any] = {
    "add": _add,
    "negative": lambda a: -a,
    "multiply": _multiply,
    "divide": _divide,
    "power": _power,
    "root": _root,
}


def _series(node: Node, point: Mapping[str, Fraction]) -> Value:
    kind, variable, low_node, high_node, body = node
    low, high_end = evaluate(low_node, point), evaluate(high_node, point)
    if not (_is_whole(low) and _is_whole(high_end)):
        raise UndefinedError("the range is not whole") if unknowns(high_node) else UnknownError("an endless series")
    if high_end - low > MAX_TERMS:
        raise UnknownError("a long series")
    total: Value = Fraction(kind == "product")
    for index in range(int(low), int(high_end) + 1):
        value = evaluate(body, {**point, variable: Fraction(index)})
        total = _add(total, value) if kind == "sum" else _multiply(total, value)
    return total


def _is_whole(value: Value) -> bool:
    return isinstance(value, Fraction) and value.denominator == 1


def _call(name: str, arguments: list[Value]) -> Value:
    try:
        if name in _EXACT:
            return _EXACT[name](*arguments)
        if name in "fgh":
            return _opaque(name, arguments)
        (argument,) = arguments
        if name not in ("ln", "lg", "log") and abs(argument) > MAX_ARGUMENT:
            raise TooLargeError("an argument of that size")
        return _FUNCTIONS[name](_high(argument))
    except (ZeroDivisionError, ValueError, ArithmeticError) as error:
        raise UndefinedError(str(error)) from error
    except (TypeError, KeyError) as error:
        raise UnknownError(name) from error


def _opaque(name: str, arguments: list[Value]) -> Value:
    """A function that nothing is known of: any that tells its arguments apart."""
    seed = _context.mpf(ord(name)) / 7
    return sum((_context.cos(seed + index + _high(value)) for index, value in enumerate(arguments)), seed)


def _factorial(value: Value) -> Value:
    if _is_whole(value) and 0 <= value <= MAX_FACTORIAL:
        return Fraction(int(_context.fac(int(value)))) if value <= 40 else _exact_factorial(int(value))
    if abs(value) > MAX_GAMMA:
        raise TooLargeError("a factorial of that size")
    return _context.gamma(_high(value) + 1)


def _exact_factorial(n: int) -> Fraction:
    product = 1
    for factor in range(2, n + 1):
        product *= factor
    return Fraction(product)


def _binomial(n: Value, k: Value) -> Value:
    if abs(n) > MAX_GAMMA or abs(k) > MAX_GAMMA:
        raise TooLargeError("a binomial of that size")
    if _is_whole(n) and _is_whole(k) and 0 <= k <= n <= MAX_FACTORIAL:
        return _exact_factorial(int(n)) / (_exact_factorial(int(k)) * _exact_factorial(int(n - k)))
    return _context.binomial(_high(n), _high(k))


def _whole_fold(fold: Any) -> Any:
    def folded(*arguments: Value) -> Value:
        if not all(_is_whole(value) for value in arguments):
            raise UndefinedError("of whole numbers only")
        return Fraction(fold(*(int(value) for value in arguments)))

    return folded


def _mod(a: Value, b: Value) -> Value:
    if not (isinstance(a, Fraction) and isinstance(b, Fraction)):
        raise UnknownError("a remainder of what is not exact")
    return a % b


def _floor(value: Value, up: bool = False) -> Value:
    if not is_real(value):
        raise UndefinedError("of real numbers only")
    if abs(value) > MAX_ARGUMENT:
        raise TooLargeError("a number of that size")
    return Fraction(int(_context.ceil(_high(real(value))) if up else _context.floor(_high(real(value)))))


_EXACT: dict[str, Any] = {
    "factorial": _factorial,
    "binomial": _binomial,
    "permutations": lambda n, k: _divide(_factorial(n), _factorial(n - k)),
    "abs": abs,
    "floor": _floor,
    "ceil": lambda value: _floor(value, up=True),
    "max": lambda *values: max(values, key=real),
    "min": lambda *values: min(values, key=real),
    "gcd": _whole_fold(math.gcd),
    "lcm": _whole_fold(math.lcm),
    "conjugate": lambda value: value if isinstance(value, Fraction) else _context.conj(value),
    "mod": _mod,
    "Re": lambda value: value if isinstance(value, Fraction) else _context.re(value),
    "Im": lambda value: Fraction(0) if isinstance(value, Fraction) else _context.im(value),
}
_FUNCTIONS: dict[str, Any] = {
    "sin": _context.sin,
    "cos": _context.cos,
    "tan": _context.tan,
    "cot": _context.cot,
    "sec": _context.sec,
    "csc": _context.csc,
    "arcsin": _context.asin,
    "arccos": _context.acos,
    "arctan": _context.atan,
    "sinh": _context.sinh,
    "cosh": _context.cosh,
    "tanh": _context.tanh,
    "arsinh": _context.asinh,
    "arcosh": _context.acosh,
    "artanh": _context.atanh,
    "exp": _context.exp,
    "cis": _context.expj,
    "ln": _context.log,
    "log": _context.log10,
    "lg": _context.log10,
    "arg": _context.arg,
    "gamma": _context.gamma,
    "zeta": _context.zeta,
}
