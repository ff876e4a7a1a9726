"""Splitting text where no bracket is open."""

from __future__ import annotations

import re

_OPENING, _CLOSING = "([{", ")]}"


def split(text: str, separators: str) -> list[str]:
    """Splits at separators that stand outside all brackets. Half-open intervals count as brackets."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0 and character in separators:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def closes_at_end(text: str, start: int = 0) -> bool:
    """Tests whether the bracket that opens at `start` closes with the last character."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in _OPENING) - (text[position] in _CLOSING)
        if depth == 0:
            return position == len(text) - 1
    return False


def split_at(text: str, pattern: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Returns what stands between the matches of a pattern that are outside all brackets, and the matches."""
    parts, found, start = [], [], 0
    for match in pattern.finditer(text):
        before = text[: match.start()]
        if sum(map(before.count, _OPENING)) == sum(map(before.count, _CLOSING)):
            parts.append(text[start : match.start()].strip())
            found.append(match[0])
            start = match.end()
    return [*parts, text[start:].strip()], found
