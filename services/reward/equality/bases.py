"""Whole numbers in other bases than ten: `1011_2`, `0x1f`, `25 (base 8)`."""

from __future__ import annotations

import re

from services.reward.equality.numbers import read_number
from services.reward.equality.numerals import english_number

_BASE = re.compile(r"^\(?(?:\\text\{)?([0-9A-Fa-f]+)\}?\)?_(?:\{(\d+)\}|(\d)|\{?\\text\{(\w+)\}\}?|\{?([a-z]{3,})\}?)$")
_BASE_WORDS = re.compile(r"^([0-9A-Fa-f]+)\s*(?:\(base (\w+)\)|(?:in )?base (\w+)|\\text\{ ?\(?base (\w+)\)?\})$")
_PREFIXED = {"0x": 16, "0b": 2, "0o": 8}


def same_in_base(reference: str, answer: str) -> bool | None:
    """Compares numbers of which one names its base; NotImplemented if neither does."""
    left, right = _in_base(reference), _in_base(answer)
    if left is None and right is None:
        return NotImplemented
    if left and right:
        # Other bases than ten are notations of one number only where one is a prefix, as 0x is.
        convertible = 10 in (left[2], right[2]) or left[3] or right[3]
        return left[:3] == right[:3] or (left[1] == right[1] is not None and convertible)
    based, other = (left, answer) if left else (right, reference)
    assert based
    number = read_number(other)
    if number is None:
        return False
    if left is not None and not based[3]:
        return number.text.lower() == based[0]  # the answer leaves the base out: its digits are of that base
    return number.value == based[1]


def _in_base(text: str) -> tuple[str, int | None, int, bool] | None:
    """(digits, value if they are digits of that base, base, whether the base is a prefix)."""
    if match := _BASE.match(text):
        base = match[2] or match[3] or english_number(match[4] or match[5])
        digits = match[1]
        prefixed = False
    elif match := _BASE_WORDS.match(text):
        base = match[2] or match[3] or match[4]
        base = base if base.isdigit() else english_number(base)
        digits, prefixed = match[1], False
    elif text[:2].lower() in _PREFIXED and re.fullmatch(r"[0-9a-fA-F]+", text[2:]):
        base, digits, prefixed = str(_PREFIXED[text[:2].lower()]), text[2:], True
    else:
        return None
    if not base or not 2 <= int(base) <= 36:
        return None
    try:
        return digits.lower(), int(digits, int(base)), int(base), prefixed
    except ValueError:
        return digits.lower(), None, int(base), prefixed
