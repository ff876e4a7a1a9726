r"""Lists that go on, as `1, 2, \ldots, 10` and `\{\ldots, -1, 0, 1, \ldots\}`, and the names of such sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from services.reward.equality import formulas
from services.reward.equality.brackets import closes_at_end, split
from services.reward.equality.names import split_name
from services.reward.equality.sequences import with_signs

MAX_TERMS = 2000
SURE_TERMS = 4  # that two sequences of no known rule must have in common
_DOTS = "..."
_BUILDER = re.compile(
    r"^\\\{ ?(?P<formula>[^:|]+?) ?(?::|\|) ?(?:(?P<low>-?\d+) ?\\le ?(?P<letter>[a-z]) ?\\le ?(?P<high>-?\d+)"
    r"(?:,[a-z] ?\\in ?\\mathbb\{[ZN]\})?|(?P<other>[a-z]) ?\\in ?\\mathbb\{(?P<numbers>[ZN])\}) ?\\\}$"
)
_NAMED = [
    (re.compile(pattern), start)
    for pattern, start in (
        (
            r"\\mathbb\{Z\}(?:\^\+|\^\{\+\}|_\+|_\{\+\}|_\{>0\}|\^\{>0\})|\\mathbb\{N\}(?:\^[*+]|\^\{[*+]\}|_\+|_\{\+\})",
            1,
        ),
        (r"(?:all |the )?(?:set of )?(?:all )?positive (?:integers|whole numbers)|正整数", 1),
        (r"\\mathbb\{Z\}_\{\\ge ?0\}|\\mathbb\{N\}_0|(?:all |the )?non-?negative integers|非负整数", 0),
    )
]


@dataclass(frozen=True)
class Progression:
    """The terms of a list, written out or continued by dots."""

    terms: list[Fraction]  # all of a finite one; else those that are written
    is_endless: bool
    both_ways: bool = False
    either_start: bool = False  # the natural numbers, with zero or without


def read_progression(text: str) -> Progression | None:
    """A list with dots in place of some of its terms, or the name of a set of whole numbers; None for other text."""
    named = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip()
    for pattern, start in _NAMED:
        if pattern.fullmatch(named):
            return Progression([Fraction(start + n) for n in range(3)], True)
    if named == r"\mathbb{N}":
        return Progression([Fraction(n) for n in range(1, 4)], True, either_start=True)
    if named == r"\mathbb{Z}":
        return Progression([Fraction(n) for n in range(3)], True, both_ways=True)
    if builder := _BUILDER.match(text):
        return _read_builder(**builder.groupdict())
    return _read_dotted(text) if _DOTS in text else None


def same_progression(reference: Progression, answer: Progression) -> bool | None:
    """Tests whether two lists have the same terms; None where the written ones are too few to tell."""
    if reference.is_endless != answer.is_endless or reference.both_ways != answer.both_ways:
        return False
    if not reference.is_endless:
        return sorted(reference.terms) == sorted(answer.terms)
    if reference.both_ways:
        steps = [each.terms[1] - each.terms[0] for each in (reference, answer)]
        return abs(steps[0]) == abs(steps[1]) and (reference.terms[0] - answer.terms[0]) % steps[0] == 0
    if reference.either_start or answer.either_start:
        other = answer if reference.either_start else reference
        return other.either_start or (_step(other.terms) == 1 and other.terms[0] in (0, 1))
    return _same_rule(reference.terms, answer.terms)


def is_list_of(progression: Progression, items: Sequence[str]) -> bool:
    """Tests whether items, each written out, are the terms of a finite list."""
    values = [formulas.exact(item) for item in items]
    if progression.is_endless or None in values:
        return False
    return sorted(progression.terms) == sorted(value for value in values if value is not None)


def _same_rule(left: Sequence[Fraction], right: Sequence[Fraction]) -> bool | None:
    if any(a != b for a, b in zip(left, right, strict=False)):
        return False
    shorter, longer = sorted((left, right), key=len)
    for rule in (_step, _ratio):
        if (found := rule(shorter)) is not None and (rule is _step or len(shorter) > 2):
            return rule(longer) == found
    return True if len(shorter) >= SURE_TERMS or len(left) == len(right) else None


def _read_builder(
    formula: str, low: str | None, high: str | None, letter: str, other: str | None, numbers: str | None
) -> Progression | None:
    """The values of a formula for all whole numbers of a range."""
    first, last = (int(low), int(high)) if low and high else (1 if numbers == "N" else 0, None)
    numbers_of = range(first, last + 1 if last is not None else first + 3)
    if len(numbers_of) > MAX_TERMS:
        return None
    values = [formulas.exact_at(formula, {letter or other or "": Fraction(number)}) for number in numbers_of]
    terms = [value for value in values if value is not None]
    if len(terms) < max(2, len(numbers_of)):
        return None
    return Progression(terms, last is None, both_ways=numbers == "Z") if last or _step(terms) else None


def up_to(text: str) -> tuple[Progression, str] | None:
    """The terms before the dots and the last one, where that is a formula with unknowns: `1, 2, \\ldots, n`."""
    *before, dots, last = ["", "", *_items(text)] if _DOTS in text else ["", ""]
    values = [formulas.exact(item) for item in before[2:]]
    if dots != _DOTS or len(values) < 2 or None in values:
        return None
    return Progression([value for value in values if value is not None], True), last


def _items(text: str) -> list[str]:
    text = split_name(text)[1]
    if text[:2] == r"\{" and closes_at_end(text, 1):
        text = text[2:-2]
    elif text[:1] in "([" and closes_at_end(text):
        text = text[1:-1]
    return split(re.sub(r",?\.\.\.,?", f",{_DOTS},", text).strip(","), ",;")


def _read_dotted(text: str) -> Progression | None:
    items = _items(text)
    places = [place for place, item in enumerate(items) if item == _DOTS]
    if not places or len(items) > MAX_TERMS:
        return None
    terms = [[value for one in with_signs(item) for value in [formulas.exact(one)]] for item in items if item != _DOTS]
    values = [value for group in terms for value in group if value is not None]
    if len(values) != sum(map(len, terms)) or not values:
        return None
    if places == [0, len(items) - 1] or (places == [len(items) - 1] and any(len(group) > 1 for group in terms)):
        return _both_ways(values)
    if places == [len(items) - 1] and len(values) > 1:
        return Progression(values, True)
    return _finite(values, places[0]) if len(places) == 1 and places[0] not in (0, len(items) - 1) else None


def _both_ways(values: list[Fraction]) -> Progression | None:
    values = sorted(set(values))
    return Progression(values, True, both_ways=True) if len(values) > 1 and _step(values) else None


def _finite(values: list[Fraction], num_before: int) -> Progression | None:
    before, after = values[:num_before], values[num_before:]
    for start in (before, after) if len(before) > 1 else (after, before):
        if len(start) > 1 and (step := _step(start)):
            return _filled(before, after, step.__add__)
    if len(values) == 2 and all(value.denominator == 1 for value in values):
        step = Fraction(1 if before[0] < after[0] else -1)
        return _filled(before, after, step.__add__)
    if len(before) > 1 and (ratio := _ratio(before)):
        return _filled(before, after, ratio.__mul__)
    return None


def _filled(
    before: list[Fraction], after: list[Fraction], following: Callable[[Fraction], Fraction]
) -> Progression | None:
    """All terms; None if the rule does not lead from those before the dots to those after."""
    terms = list(before)
    while terms[-1] != after[0]:
        terms.append(following(terms[-1]))
        if len(terms) > MAX_TERMS or abs(terms[-1]) > 10 * max(map(abs, (*before, *after))) + 10:
            return None
    terms += after[1:]
    return Progression(terms, False) if all(following(a) == b for a, b in pairwise(terms)) else None


def _step(terms: Sequence[Fraction]) -> Fraction | None:
    steps = {b - a for a, b in pairwise(terms)}
    return steps.pop() if len(steps) == 1 else None


def _ratio(terms: Sequence[Fraction]) -> Fraction | None:
    if 0 in terms:
        return None
    ratios = {b / a for a, b in pairwise(terms)}
    return ratios.pop() if len(ratios) == 1 else None
