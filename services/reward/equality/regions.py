"""Sets of real numbers however they are written: intervals, inequalities, unions, single points, all but a few."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from services.reward.equality.brackets import closes_at_end, split

INFINITY, MINUS_INFINITY = r"\infty", r"-\infty"
RELATION = re.compile(r"\\le(?![a-z])|\\ge(?![a-z])|<|>")
MIRRORED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_OR = re.compile(r"\\cup(?![a-z])|\\text\{\s*(?:or|and)\s*\}|\\lor(?![a-z])|\b(?:or|and)\b|[或且]")
_AND = re.compile(r"\\text\{\s*and\s*\}|\band\b|且|\\land(?![a-z])|,")
_BUILDER = re.compile(r"^\\\{\s*([a-z])\s*(?:\\in\\mathbb\{R\}\s*)?(?:\||:)\s*(.+)\\\}$")
_MEMBER = re.compile(r"^[a-zA-Z](?:_\w)?\s*\\in(?![a-z])\s*(.+)$")
_UNKNOWN = re.compile(r"[a-zA-Z](?:_\w)?|\\(?:theta|alpha|beta|lambda|mu|phi)|f\(x\)")
_ABSOLUTE = re.compile(r"^\|([a-zA-Z](?:_\w)?)(?:([-+])([^|]+))?\|$")
_REALS = r"\mathbb{R}"
_WITHOUT = re.compile(r"^\\mathbb\{R\}\s*(?:\\setminus|\\backslash|-)\s*\\\{(.+)\\\}$")

Sign = Callable[[str, str], int | None]
"""-1, 0 or 1 for how two endpoints stand to each other; None if that is undecided."""


@dataclass(frozen=True)
class Interval:
    """An interval, with its ends as text."""

    low: str
    high: str
    closed_low: bool
    closed_high: bool


def read_region(text: str, sign: Sign) -> list[Interval] | None:
    """The intervals of a set of reals; None if the text is none. A plain pair in round or square brackets is not: it
    may be a point."""
    if builder := _BUILDER.match(text):
        text = builder[2]
    elif member := _MEMBER.match(text):
        text = member[1]
        if text == _REALS:
            return [Interval(MINUS_INFINITY, INFINITY, False, False)]
    if r"\ne" in text:
        text = re.sub(r"\s*(?:\\text\{\s*and\s*\}|\band\b|且)\s*", ",", text)
    if both := _intersection(text, sign):
        return [both]
    intervals: list[Interval] = []
    pieces = [piece.strip(" ,;") for piece in _OR.split(text)]
    if RELATION.search(text) or any(mark in text for mark in "([]"):
        pieces = [part for piece in pieces for part in _values_apart(piece)]
    for piece in pieces:
        read = _read_piece(piece)
        if read is None:
            return None
        intervals += read
    return intervals


def _values_apart(text: str) -> list[str]:
    """`x = 1, 2` and `x \\le -1, x = 0` in parts, a value as the set that holds it."""
    parts = split(text, ",;")
    if not any("=" in part for part in parts):
        return [text]
    sides = [(part, *(side.strip() for side in part.partition("=")[::2])) for part in parts]
    return [
        rf"\{{{value}\}}" if is_unknown(name) and value else rf"\{{{name}\}}" if is_unknown(value) else part
        for part, name, value in sides
    ]


def _intersection(text: str, sign: Sign) -> Interval | None:
    """`x > 0 and x < 5`; None where the two do not meet: then they are alternatives."""
    pieces = [_inequality(piece.strip()) for piece in _AND.split(text)]
    if len(pieces) != 2 or any(piece is None or len(piece) > 1 for piece in pieces):
        return None
    (first,), (second,) = (piece for piece in pieces if piece)
    low, high = (second, first) if first.low == MINUS_INFINITY else (first, second)
    if low.high != INFINITY or high.low != MINUS_INFINITY or sign(low.low, high.high) != -1:
        return None
    return Interval(low.low, high.high, low.closed_low, high.closed_high)


def is_plain_pair(text: str) -> bool:
    """Tests whether the text is one pair in brackets without an infinity or half-open end: an interval or a point."""
    return bool(text) and text[0] + text[-1] in ("()", "[]") and "\\cup" not in text and "infty" not in text


def same_region(reference: list[Interval], answer: list[Interval], sign: Sign) -> bool | None:
    """Tests whether two sets are the same, when joined where they touch."""
    left, right = _joined(reference, sign), _joined(answer, sign)
    if left is None or right is None:
        return None
    if len(left) != len(right):
        return False
    signs = [
        sign(a, b)
        for one, other in zip(left, right, strict=True)
        for a, b in ((one.low, other.low), (one.high, other.high))
    ]
    if any(found not in (0, None) for found in signs):
        return False
    closures = [(one.closed_low, one.closed_high) for one in left] == [
        (one.closed_low, one.closed_high) for one in right
    ]
    return False if not closures else None if None in signs else True


def _joined(intervals: list[Interval], sign: Sign) -> list[Interval] | None:
    """In order, and joined where they overlap or touch. None if ends cannot be compared, unless there is only one."""
    rest, joined = list(intervals), list[Interval]()
    while rest:
        lowest = rest[0]
        for candidate in rest[1:]:
            compared = sign(candidate.low, lowest.low)
            if compared is None:
                return None
            if compared < 0 or (compared == 0 and candidate.closed_low):
                lowest = candidate
        rest.remove(lowest)
        if joined:
            last = joined[-1]
            gap, reach = sign(lowest.low, last.high), sign(lowest.high, last.high)
            if gap is None or reach is None:
                return None
            if gap < 0 or (gap == 0 and (lowest.closed_low or last.closed_high)):
                if reach > 0 or (reach == 0 and lowest.closed_high):
                    joined[-1] = Interval(last.low, lowest.high, last.closed_low, lowest.closed_high)
                continue
        joined.append(lowest)
    return joined


def _read_piece(text: str) -> list[Interval] | None:
    parts = split(text, ",;")
    if len(parts) > 1 and all(RELATION.search(part) or r"\ne" in part for part in parts):
        return _without_points(parts)
    if text == _REALS:
        return [Interval(MINUS_INFINITY, INFINITY, False, False)]
    if match := _WITHOUT.match(text):
        return _all_but(split(match[1], ",;"))
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return [Interval(point, point, True, True) for point in split(text[2:-2], ",;")]
    return _bracketed(text) or _unequal(text) or _inequality(text)


def _bracketed(text: str) -> list[Interval] | None:
    if len(text) < 5:
        return None
    if text[0] == "]" or text[-1] == "[":  # French: the bracket that turns away is open
        text = text[0].replace("]", "(") + text[1:-1] + text[-1].replace("[", ")")
    if text[0] not in "([" or text[-1] not in ")]" or not closes_at_end(text):
        return None
    ends = split(text[1:-1], ",;")
    if len(ends) != 2:
        return None
    return [Interval(ends[0], ends[1].removeprefix("+"), text[0] == "[", text[-1] == "]")]


def _unequal(text: str) -> list[Interval] | None:
    unknown, found, point = text.partition(r"\ne")
    return _all_but([point.strip()]) if found and is_unknown(unknown.strip()) and "," not in point else None


def _all_but(points: list[str]) -> list[Interval]:
    """Between the points, which have to be in order."""
    ends = [MINUS_INFINITY, *points, INFINITY]
    return [Interval(low, high, False, False) for low, high in pairwise(ends)]


def _without_points(parts: list[str]) -> list[Interval] | None:
    """`0 < x < 5, x \\ne 2`: one interval, and one point that is not in it."""
    ranges = [part for part in parts if r"\ne" not in part]
    if len(ranges) != 1 or len(parts) != 2 or (interval := _inequality(ranges[0])) is None:
        return None
    point = next(part for part in parts if r"\ne" in part).partition(r"\ne")[2].strip()
    (whole,) = interval
    return [Interval(whole.low, point, whole.closed_low, False), Interval(point, whole.high, False, whole.closed_high)]


def _inequality(text: str) -> list[Interval] | None:
    relations = [match[0] for match in RELATION.finditer(text)]
    sides = [side.strip() for side in RELATION.split(text)]
    if len(sides) == 2 and not sides[0]:
        sides[0] = "x"  # `\le 4`
    if not all(sides):
        return None
    if relations and any(side.startswith("|") for side in sides):
        return _distance(sides, relations)
    if len(relations) == 1:
        low, high = sides
        if not is_unknown(low):
            low, high, relations = high, low, [MIRRORED[relations[0]]]
        if not is_unknown(low) or is_unknown(high):
            return None
        closed = relations[0] in (r"\le", r"\ge")
        if relations[0] in ("<", r"\le"):
            return [Interval(MINUS_INFINITY, high, False, closed)]
        return [Interval(high, INFINITY, closed, False)]
    if len(relations) == 2 and is_unknown(sides[1]):
        if all(relation in (">", r"\ge") for relation in relations):
            sides, relations = sides[::-1], [MIRRORED[relation] for relation in relations[::-1]]
        if all(relation in ("<", r"\le") for relation in relations):
            return [Interval(sides[0], sides[2], relations[0] == r"\le", relations[1] == r"\le")]
    return None


def _distance(sides: list[str], relations: list[str]) -> list[Interval] | None:
    """`|x-2| < 3` and `1 < |x| \\le 2`: on both sides of a point."""
    if relations[0] in (">", r"\ge"):
        sides, relations = sides[::-1], [MIRRORED[relation] for relation in relations[::-1]]
    places = [place for place, side in enumerate(sides) if _ABSOLUTE.match(side)]
    if len(places) != 1 or len(sides) > 3 or not set(relations) <= {"<", r"\le"}:
        return None
    (place,) = places
    match = _ABSOLUTE.match(sides[place])
    assert match
    center = "" if match[3] is None else f"-({match[3]})" if match[2] == "+" else f"({match[3]})"
    closed = [relation == r"\le" for relation in relations]
    if place == 0:  # |x| < far
        return [Interval(f"{center}-({sides[1]})", f"{center}+({sides[1]})", closed[0], closed[0])]
    near, far = sides[0], sides[2] if len(sides) == 3 else None
    low = MINUS_INFINITY if far is None else f"{center}-({far})"
    high = INFINITY if far is None else f"{center}+({far})"
    closed_far = far is not None and closed[1]
    return [
        Interval(low, f"{center}-({near})", closed_far, closed[0]),
        Interval(f"{center}+({near})", high, closed[0], closed_far),
    ]


def is_unknown(side: str) -> bool:
    """True if a side is a variable, or f(x)."""
    return _UNKNOWN.fullmatch(side) is not None
