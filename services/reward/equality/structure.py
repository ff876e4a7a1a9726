"""Structure of answers: lists, tuples, sets, intervals, equations, units. Expressions inside are left to a leaf.

Truth has three values here: None says that the leaf could not tell, so that the whole may be asked again with a leaf
that knows algebra.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from services.reward.equality.notation import MAX_CHARS, normalise
from services.reward.equality.numbers import Number, agree, read_number
from services.reward.equality.units import Unit, split_unit

Leaf = Callable[[str, str], bool | None]
"""Whether two expressions, reference first, have the same value."""

_OPENING, _CLOSING = "([{", ")]}"
_INFINITIES = (r"\infty", r"-\infty")
_RELATION = re.compile(r"\\le(?![a-z])|\\ge(?![a-z])|<|>")
_MIRRORED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_NAME = re.compile(r"^([a-zA-Z](?:_\{?\w+\}?)?'*(?:\^\{-1\})?)(?:\(([a-z](?:,[a-z])*)\))?=([^=]+)$")
_MEMBER = re.compile(r"^[a-z](?:_\w)?\s*\\in(?![a-z])\s*(.+)$")
_BUILDER = re.compile(r"^\\\{\s*([a-z])\s*(?:\\in\\mathbb\{R\}\s*)?(?:\||\\mid|:)\s*(.+)\\\}$")
_BASE = re.compile(r"^([0-9A-Fa-f]+)_(?:\{(\d+)\}|(\d))$")
_JOINT = re.compile(r"\s*(?:\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)\s*")
_VECTOR = re.compile(r"^\\begin\{pmatrix\}(.+)\\end\{pmatrix\}$")
_THOUSANDS = re.compile(r"^-?\d{1,3}(?:,\d{3})+(?:\.\d+)?$")


def undecided(reference: str, answer: str) -> bool | None:
    """The leaf of those who know no algebra."""
    return None


def equal(reference: str, answer: str, leaf: Leaf = undecided) -> bool | None:
    """Whether an answer means the same as the reference; None if the leaf could not tell."""
    if len(answer) > MAX_CHARS:
        return False
    return _equal(normalise(reference), normalise(answer), leaf)


def _equal(reference: str, answer: str, leaf: Leaf) -> bool | None:
    if not answer:
        return False
    if reference == answer:
        return True
    numbers = read_number(reference), read_number(answer)
    if numbers[0] and numbers[1]:
        return agree(numbers[0], numbers[1])
    reference, answer = _without_name(reference, answer)
    for compare in (_lists, _brackets, _bases, _quantities):
        verdict = compare(reference, answer, leaf)
        if verdict is not NotImplemented:
            return verdict
    if _is_words(reference):
        return _words(reference) == _words(answer)
    return _scalars(reference, answer, leaf)


def _scalars(reference: str, answer: str, leaf: Leaf) -> bool | None:
    if reference == answer:
        return True
    left, right = read_number(reference), read_number(answer)
    return agree(left, right) if left and right else leaf(reference, answer)


def _without_name(reference: str, answer: str) -> tuple[str, str]:
    """`x = e` as `e` where the other side has no name either, or the same; a parameter of a function is renamed."""
    left, right = _NAME.match(reference), _NAME.match(answer)
    if left and right:
        if left[2] and right[2] and left[1] == right[1]:
            return left[3], _rename(right[3], right[2].split(","), left[2].split(","))
        return (left[3], right[3]) if left[1] == right[1] and not (left[2] or right[2]) else (reference, answer)
    if left and not _RELATION.search(answer) and "=" not in answer:
        return left[3], answer
    if "=" not in reference and "=" in answer and not _JOINT.search(answer) and len(_split(answer, ",;")) == 1:
        return reference, answer.rpartition("=")[2]  # a calculation commits to its result
    return reference, answer


def _rename(expression: str, old: Sequence[str], new: Sequence[str]) -> str:
    names = dict(zip(old, new, strict=False))
    return re.sub(r"(?<![a-zA-Z\\])[a-z](?![a-zA-Z])", lambda match: names.get(match[0], match[0]), expression)


# Lists and sets: the same elements in any order.


def _lists(reference: str, answer: str, leaf: Leaf) -> bool | None:
    left, right = _elements(reference), _elements(answer)
    if len(left) == 1 and len(right) == 1:
        if (left[0], right[0]) == (reference, answer):
            return NotImplemented
        return _equal(left[0], right[0], leaf)
    return _same_elements(left, right, leaf)


def _same_elements(reference: Sequence[str], answer: Sequence[str], leaf: Leaf) -> bool | None:
    if len(reference) != len(answer):
        return False
    left = list(answer)
    unsure = False
    for wanted in reference:
        verdicts = [_equal(wanted, found, leaf) for found in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


def _elements(text: str) -> list[str]:
    """The elements of a list, a set or a union of intervals; one for anything else."""
    if builder := _BUILDER.match(text):
        return [builder[2]]
    if text.startswith(r"\{") and text.endswith(r"\}") and _closes_at_end(text, 1):
        text = text[2:-2].strip()
    elif member := _MEMBER.match(text):
        text = member[1]
    if _sequence(text):
        return [text]
    if _THOUSANDS.match(text):
        return [text.replace(",", "")]
    if _is_words(_JOINT.sub(" ", text)):
        return [text]
    parts = [part for joined in _JOINT.split(text) for part in _split(joined, ",;")]
    parts = [part for joined in parts for part in re.split(r"\\cup(?![a-z])", joined)]
    return [value for part in parts if part.strip() for value in _both_signs(part.strip())] or [text]


def _both_signs(text: str) -> list[str]:
    if text.count(r"\pm") != 1:
        return [text]
    before, _, after = text.partition(r"\pm")
    plus = "+" if before.rstrip(" =({") and not before.rstrip().endswith("=") else ""
    return [before + plus + after.lstrip(), f"{before}-{after.lstrip()}"]


# Tuples, vectors and intervals: elements in order between brackets.


def _brackets(reference: str, answer: str, leaf: Leaf) -> bool | None:
    left, right = _sequence(reference), _sequence(answer)
    if left is None and right is None:
        return NotImplemented
    if left is None or right is None:
        # A system of inequalities may still be solved into an interval, but not a number into a tuple.
        return leaf(reference, answer) if _RELATION.search(reference + answer) else False
    (left_ends, left_items), (right_ends, right_items) = left, right
    if len(left_items) != len(right_items):
        return False
    if len(left_items) == 2 and "<>" not in (left_ends, right_ends) and left_ends != right_ends:
        return False  # open for closed
    return _every(_equal(wanted, found, leaf) for wanted, found in zip(left_items, right_items, strict=True))


def _sequence(text: str) -> tuple[str, list[str]] | None:
    """The brackets of an ordered sequence and its elements; `<>` for those of vectors."""
    if text in (r"\mathbb{R}", r"\text{R}"):
        return "()", [r"-\infty", r"\infty"]
    if match := _VECTOR.match(text):
        rows = [[cell.strip() for cell in row.split("&")] for row in match[1].split(r"\\") if row.strip()]
        if len(rows) == 1 or all(len(row) == 1 for row in rows):
            return "<>", [cell for row in rows for cell in row]
        return None
    if text.startswith(r"\langle") and text.endswith(r"\rangle"):
        return "<>", _split(text[7:-7], ",")
    if text.startswith("<") and text.endswith(">") and "," in text:
        return "<>", _split(text[1:-1], ",")
    if text and text[0] in "([" and text[-1] in ")]" and _closes_at_end(text, 0):
        items = _split(text[1:-1], ",;")
        return (text[0] + text[-1], items) if len(items) > 1 else None
    return _interval(text)


def _interval(text: str) -> tuple[str, list[str]] | None:
    """An inequality in one unknown as the interval it describes."""
    relations = [match[0] for match in _RELATION.finditer(text)]
    sides = [side.strip() for side in _RELATION.split(text)]
    if len(relations) == 1:
        low, high = sides
        if not _is_unknown(low):
            low, high, relations = high, low, [_MIRRORED[relations[0]]]
        if not _is_unknown(low) or _is_unknown(high):
            return None
        closed = relations[0] in (r"\le", r"\ge")
        if relations[0] in ("<", r"\le"):
            return "(" + (")", "]")[closed], [r"-\infty", high]
        return ("(", "[")[closed] + ")", [high, r"\infty"]
    if len(relations) == 2 and _is_unknown(sides[1]):
        if all(relation in (">", r"\ge") for relation in relations):
            sides, relations = sides[::-1], [_MIRRORED[relation] for relation in relations[::-1]]
        if all(relation in ("<", r"\le") for relation in relations):
            ends = ("(", "[")[relations[0] == r"\le"] + (")", "]")[relations[1] == r"\le"]
            return ends, [sides[0], sides[2]]
    return None


def _is_unknown(side: str) -> bool:
    return re.fullmatch(r"[a-zA-Z](?:_\w)?|\\theta|f\(x\)", side) is not None


# Digits in a base, and values with a unit.


def _bases(reference: str, answer: str, leaf: Leaf) -> bool | None:
    left, right = _BASE.match(reference), _BASE.match(answer)
    if not left and not right:
        return NotImplemented
    bases = {match[2] or match[3] for match in (left, right) if match}
    digits = [match[1] if match else text for match, text in ((left, reference), (right, answer))]
    return len(bases) == 1 and digits[0].lower() == digits[1].lower()


def _quantities(reference: str, answer: str, leaf: Leaf) -> bool | None:
    (left, left_unit), (right, right_unit) = split_unit(reference), split_unit(answer)
    if left_unit is None and right_unit is None:
        return NotImplemented
    if left_unit and right_unit:
        if left_unit.dimension != right_unit.dimension:
            return False
        if left_unit == right_unit:
            return _equal(left, right, leaf)
        return _scalars(_in_base_unit(left, left_unit), _in_base_unit(right, right_unit), leaf)
    # One side leaves the unit out; a ratio or an angle may also be given as the plain number it is.
    as_written = _equal(left, right, leaf)
    unit = left_unit or right_unit
    if as_written or unit is None or unit.dimension not in ("ratio", "angle"):
        return as_written
    converted = _scalars(
        _in_base_unit(left, left_unit) if left_unit else left,
        _in_base_unit(right, right_unit) if right_unit else right,
        leaf,
    )
    return True if converted else None if None in (as_written, converted) else False


def _in_base_unit(value: str, unit: Unit) -> str:
    number = read_number(value)
    if number and not unit.times_pi:
        return _written(number, unit.factor)
    pi = r"\cdot\pi" if unit.times_pi else ""
    return rf"\frac{{{unit.factor.numerator}}}{{{unit.factor.denominator}}}\cdot({value}){pi}"


def _written(number: Number, factor: Fraction) -> str:
    value = number.value * factor
    return f"{value.numerator}/{value.denominator}"


# Text.


def _is_words(text: str) -> bool:
    """Whether the text is a word or several, and no product of variables."""
    words = _words(text)
    return bool(
        re.fullmatch(r"[^\W\d_]{3,}(?: [^\W\d_]+)*|[A-Z]|[^\W\d_a-zA-Z][^\W\d_]*", words if len(words) > 1 else text)
    )


def _words(text: str) -> str:
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"^\(([a-zA-Z])\)$", r"\1", text.strip())
    return " ".join(text.strip(" \"'.").casefold().split())


def _every(verdicts: Iterable[bool | None]) -> bool | None:
    found = list(verdicts)
    return False if False in found else None if None in found else True


def _split(text: str, separators: str) -> list[str]:
    """Splits at separators that stand outside all brackets."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0 and character in separators:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def _closes_at_end(text: str, start: int) -> bool:
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in _OPENING) - (text[position] in _CLOSING)
        if depth == 0:
            return position == len(text) - 1
    return False
