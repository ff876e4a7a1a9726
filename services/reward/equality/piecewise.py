r"""Functions in pieces: `\begin{cases} x & x > 0 \\ 0 & \text{otherwise} \end{cases}`, `x if x > 0, 0 otherwise`.

Where the conditions are ranges of numbers, two functions are compared by their values: at each end of a range, and at
points between. Other conditions are compared as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from services.reward.equality import formulas
from services.reward.equality.matrices import matrix_rows
from services.reward.equality.regions import INFINITY, MINUS_INFINITY, Interval, read_region

_CASES = re.compile(r"^(?:([^={}]{1,30})=)?\\begin\{cases\}(.*)\\end\{cases\}\.?$", re.DOTALL)
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_WORD = re.compile(r"\b(?:if|for|when|where|whenever|is|an?|be)\b|[$.,;]+(?=\s|$)|^\s*,|当|时|若|如果")
_OTHERWISE = re.compile(r"otherwise|else|elsewhere|other|others|其他|其它|否则")
_STARTS_CONDITION = re.compile(r"\s*,?\s*\b(?=(?:if|for|when|otherwise|else)\b)")
_IN_WORDS = re.compile(r"[,;]\s*(?:and\s+)?|\s+and\s+")
_UNKNOWN = re.compile(r"(?<![a-zA-Z\\])([a-zA-Z])(?![a-zA-Z])")
_SAYS_WHEN = re.compile(r"\b(?:if|when|otherwise)\b")
MAX_PIECES = 12
_SHARES = (Fraction(13, 37), Fraction(29, 41))  # where between two ends values are compared
_STEPS = (Fraction(37, 29), Fraction(101, 17))  # and how far beyond the outermost ones

Compare = Callable[[str, str], "bool | None"]


@dataclass(frozen=True)
class Piece:
    """A value and the condition that it holds under."""

    value: str
    condition: str | None  # None: otherwise


def read_pieces(text: str) -> list[Piece] | None:
    """The pieces of a function; None if the text is none."""
    if match := _CASES.match(text):
        rows = [[cell for cell in row if cell] for row in matrix_rows(match[2])]
        parts = [(row[0], row[1]) if len(row) == 2 else _split_condition(" ".join(row)) for row in rows]
    elif _SAYS_WHEN.search(text):
        parts = [_split_condition(chunk) for chunk in _IN_WORDS.split(text.partition("=")[2] or text)]
        if not all(condition for _, condition in parts):
            return None
    else:
        return None
    if not 1 < len(parts) <= MAX_PIECES or not all(value and condition for value, condition in parts):
        return None
    return [Piece(value.strip(" ,;."), _condition(condition)) for value, condition in parts]


def _split_condition(row: str) -> tuple[str, str]:
    value, condition = (*_STARTS_CONDITION.split(_TEXT.sub(r" \1 ", row), maxsplit=1), "")[:2]
    return value.strip(), condition


def _condition(text: str) -> str | None:
    text = _TEXT.sub(r" \1 ", text).replace("$", "")
    if _OTHERWISE.search(text):
        return None
    return re.sub(r"\s*(\\?[^\w\s]|\\[lgn]e|\\in)\s*", r"\1", " ".join(_WORD.sub(" ", text).split()))


def same_function(reference: Sequence[Piece], answer: Sequence[Piece], equal: Compare) -> bool | None:
    """Tests whether two functions in pieces are the same; `equal` compares two values."""
    verdict = _same_values(reference, answer)
    return _same_pieces(reference, answer, equal) if verdict is None else verdict


def same_as_formula(pieces: Sequence[Piece], formula: str) -> bool | None:
    """Tests whether a function in pieces is one formula, as |x| is."""
    return _same_values(pieces, [Piece(formula, None)]) if formulas.is_scalar(formula) else False


def _same_pieces(reference: Sequence[Piece], answer: Sequence[Piece], equal: Compare) -> bool | None:
    if len(reference) != len(answer):
        return False
    left = list(answer)
    unsure = False
    for wanted in sorted(reference, key=lambda piece: piece.condition is None):
        same = [piece for piece in left if _same_condition(wanted.condition, piece.condition, equal)]
        # `otherwise` is what no other piece speaks of.
        chosen = same or (left if len(left) == 1 and None in (wanted.condition, left[0].condition) else [])
        if not chosen:
            chosen = [piece for piece in left if piece.condition is None]
        verdict = equal(wanted.value, chosen[0].value) if chosen else False
        if verdict is False:
            return False
        unsure |= verdict is None
        left.remove(chosen[0])
    return None if unsure else True


def _same_condition(reference: str | None, answer: str | None, equal: Compare) -> bool:
    if reference is None or answer is None or reference == answer:
        return reference == answer
    return re.search(r"[<>=\d]", reference) is not None and equal(reference, answer) is True


# By values.


@dataclass(frozen=True)
class _Range:
    low: Fraction | None  # None: without end
    high: Fraction | None
    closed_low: bool
    closed_high: bool

    def holds(self, point: Fraction) -> bool:
        above = self.low is None or point > self.low or (self.closed_low and point == self.low)
        return above and (self.high is None or point < self.high or (self.closed_high and point == self.high))


def _same_values(reference: Sequence[Piece], answer: Sequence[Piece]) -> bool | None:
    """By values; None if the conditions are no ranges with rational ends, or a value cannot be found."""
    unknown = _unknown(reference) or _unknown(answer)
    wanted, found = _ranges(reference), _ranges(answer)
    if unknown is None or wanted is None or found is None or _unknown(answer) not in (None, unknown):
        return None
    try:
        return all(
            formulas.same_at(_at(reference, wanted, point), _at(answer, found, point), {unknown: point})
            for point in _points(wanted + found)
        )
    except formulas.NoValueError:
        return None


def _unknown(pieces: Sequence[Piece]) -> str | None:
    """The one letter that the conditions speak of."""
    letters = {letter for piece in pieces for letter in _UNKNOWN.findall(piece.condition or "")}
    return letters.pop() if len(letters) == 1 else None


def _ranges(pieces: Sequence[Piece]) -> list[list[_Range] | None] | None:
    """Returns where each piece holds, None standing for `otherwise`; None if one of them is undecided."""
    found: list[list[_Range] | None] = []
    for piece in pieces:
        if piece.condition is None:
            found.append(None)
            continue
        if single := re.fullmatch(r"[a-zA-Z]=([^=]+)", piece.condition):
            intervals = [Interval(single[1], single[1], True, True)]
        else:
            intervals = read_region(piece.condition, formulas.sign) or []
        ranges = [_range(interval) for interval in intervals]
        if not ranges or None in ranges:
            return None
        found.append([each for each in ranges if each])
    return found


def _range(interval: Interval) -> _Range | None:
    low = None if interval.low == MINUS_INFINITY else formulas.exact(interval.low)
    high = None if interval.high == INFINITY else formulas.exact(interval.high)
    if (low is None) != (interval.low == MINUS_INFINITY) or (high is None) != (interval.high == INFINITY):
        return None
    return _Range(low, high, interval.closed_low, interval.closed_high)


def _points(ranges: Sequence[list[_Range] | None]) -> list[Fraction]:
    ends = sorted(
        {end for each in ranges for one in each or () for end in (one.low, one.high) if end is not None}
        or {Fraction(0)}
    )
    between = [low + (high - low) * share for low, high in pairwise(ends) for share in _SHARES]
    return [*ends, *between, *(ends[0] - step for step in _STEPS), *(ends[-1] + step for step in _STEPS)]


def _at(pieces: Sequence[Piece], ranges: Sequence[list[_Range] | None], point: Fraction) -> str | None:
    """The formula that holds at a point; None if there is none."""
    otherwise = None
    for piece, where in zip(pieces, ranges, strict=True):
        if where is None:
            otherwise = piece.value
        elif any(each.holds(point) for each in where):
            return piece.value
    return otherwise
