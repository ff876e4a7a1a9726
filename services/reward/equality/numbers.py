"""Numbers as they are written, read exactly: integers, decimals, fractions, scientific notation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

FULL_PRECISION = 12  # a decimal of so many digits is what a calculator shows, and not a choice of rounding
MAX_DIGITS = 1000  # beyond that a number is not worth its cost

_UNSIGNED = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_POWER = r"[eE]\s*\+?(?P<e>-?\d{1,4})|\s*(?:\\times|\\cdot|\*)\s*10\^(?:\{(?P<p1>[+-]?\d{1,4})\}|(?P<p2>[+-]?\d{1,4}))"
_DECIMAL = re.compile(rf"(?P<sign>[+-]?)\s*(?P<digits>{_UNSIGNED})(?:{_POWER})?")
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s*(?:(?P<whole>\d+)(?:\s+(?=\d)|\s*(?=\\)))?"
    r"(?:(?P<n1>\d+)\s*/\s*(?P<d1>\d+)|\\[dtc]?frac\s*(?:\{\s*(?P<n2>-?\d+)\s*\}\s*\{\s*(?P<d2>\d+)\s*\}"
    r"|(?P<n3>\d)\s*(?P<d3>\d)))"
)
# In running text: a sign counts only where it cannot be a minus, and `3.` ends a sentence.
_IN_TEXT = re.compile(
    r"(?<![\w.\\])(?:(?<![\w)\]}])[+-])?(?:\d+/\d+(?![\w/])|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?|\.\d+)"
)


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction
    text: str
    half_unit: Fraction | None = None
    """Half a unit in the last decimal place, where it is written as a decimal; None: an exact form."""
    num_digits: int = 0  # of a decimal


def read_number(text: str) -> Number | None:
    """The number that the whole text is; None if it is anything else, or too long to be worth it."""
    text = text.strip().replace("−", "-").strip("$").strip()
    if len(text) > MAX_DIGITS:
        return None
    if match := _FRACTION.fullmatch(text):
        return _read_fraction(match)
    if match := _DECIMAL.fullmatch(text):
        return _read_decimal(match)
    return None


def find_numbers(text: str) -> list[Number]:
    """All numbers in running text, in order."""
    found = (read_number(match[0]) for match in _IN_TEXT.finditer(text.replace("−", "-")))
    return [number for number in found if number]


def agree(reference: Number, answer: Number) -> bool:
    """Tests whether an answer has the value of the reference. Two decimals agree only if they are equal; an exact form
    agrees with a decimal reference that it rounds to, and never the other way round."""
    if reference.half_unit is not None and (answer.half_unit is None or answer.num_digits >= FULL_PRECISION):
        return abs(answer.value - reference.value) <= reference.half_unit
    return answer.value == reference.value


def _read_fraction(match: re.Match[str]) -> Number | None:
    numerator = int(match["n1"] or match["n2"] or match["n3"])
    denominator = int(match["d1"] or match["d2"] or match["d3"])
    whole = int(match["whole"] or 0)
    if denominator == 0 or (match["whole"] and not 0 <= numerator < denominator):
        return None
    value = whole + Fraction(numerator, denominator)
    return Number(-value if match["sign"] == "-" else value, match[0])


def _read_decimal(match: re.Match[str]) -> Number:
    digits = match["digits"].replace(",", "")
    exponent = int(match["e"] or match["p1"] or match["p2"] or 0)
    scale = Fraction(10) ** exponent
    value = Fraction(digits if digits[-1] != "." else digits[:-1]) * scale
    places = len(digits.partition(".")[2])
    half_unit = scale / (2 * 10**places) if places or exponent < 0 else None
    num_digits = len(digits.replace(".", "").lstrip("0"))
    return Number(-value if match["sign"] == "-" else value, match[0], half_unit, num_digits)
