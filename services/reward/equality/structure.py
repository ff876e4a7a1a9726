"""Structure of answers: names, relations, lists, brackets, matrices, units. Formulas inside are left to `formulas`.

Truth has three values here: None says that it could not be told without algebra, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache

from services.reward.equality import formulas
from services.reward.equality.brackets import closes_at_end, split, split_at
from services.reward.equality.moments import read_date, read_time
from services.reward.equality.notation import MAX_CHARS, normalise
from services.reward.equality.numbers import Number, agree, read_number
from services.reward.equality.numerals import english_number
from services.reward.equality.regions import (
    MIRRORED,
    RELATION,
    Interval,
    is_plain_pair,
    is_unknown,
    read_region,
    same_region,
)
from services.reward.equality.units import Unit, split_quantity
from services.reward.equality.words import choice_letter, is_text, plain, same_words, symbol_of

Algebra = Callable[[str, str], bool | None]
"""Whether two formulas, reference first, have the same value, by whatever takes long."""

MAX_MATRICES = 4  # in a sum or product
_NAME = re.compile(
    r"^((?:\\angle ?)?(?:[a-zA-Z]|\\[a-z]+|[A-Z]{2,3})(?:_(?:\{[^{}]*\}|\w))?'*(?:\^\{-1\})?)(?:\(([^()=]{1,20})\))?$"
)
_TUPLE_NAME = re.compile(r"^\(([a-zA-Z](?:_\w)?(?:,[a-zA-Z](?:_\w)?)+)\)$")
_SUM_OF_NAMES = re.compile(r"^-?[a-zA-Z](?:_\w)?(?:[-+*/]?[a-zA-Z](?:_\w)?)*$")
_BASE = re.compile(r"^\(?(?:\\text\{)?([0-9A-Fa-f]+)\}?\)?_(?:\{(\d+)\}|(\d)|\{?\\text\{(\w+)\}\}?)$")
_BASE_WORDS = re.compile(r"^([0-9A-Fa-f]+)\s*(?:\(base (\w+)\)|(?:in )?base (\w+)|\\text\{ ?\(?base (\w+)\)?\})$")
_PREFIXED = {"0x": 16, "0b": 2, "0o": 8}
_ANY_RELATION = re.compile(r"\\(?:le|ge|ne|equiv)(?![a-z])|<|>|=")
_JOINT = re.compile(r"\s*(?:\\text\{\s*,?\s*(?:and|or|和|或)\s*\}|\b(?:and|or)\b|(?<=[\w)])\s*[和或]\s*(?=[\w(-]))\s*")
_VECTOR = re.compile(r"^\\begin\{pmatrix\}(.+)\\end\{pmatrix\}$", re.DOTALL)
_APPROXIMATE = re.compile(r"\\approx|\\simeq|\\sim(?![a-z])")
_MATRIX_TERM = re.compile(
    r"\s*([-+]?(?:[\w.]|\\frac\{[^{}]*\}\{[^{}]*\}|\\(?:cdot|sqrt\{[^{}]*\}|lambda|theta))*)\s*"
    r"\\begin\{pmatrix\}((?:(?!\\begin).)*?)\\end\{pmatrix\}(\^\{?(?:T|\\top)\}?)?",
    re.DOTALL,
)
_CELL = r"\s*([^&\\{}]+?)\s*"
_DETERMINANT = re.compile(rf"\\begin\{{vmatrix\}}{_CELL}&{_CELL}\\\\{_CELL}&{_CELL}(?:\\\\)?\s*\\end\{{vmatrix\}}")
_UNIT_VECTORS = re.compile(r"([-+]?[^-+]*?)\\unit([ijk])")
_COMMA_DECIMAL = re.compile(r"^-?(?:\d{1,3}(?:\.\d{3})+,\d+|\d+,\d{1,2}|0,\d+|\d{4,},\d+)$")
_PHRASES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?:\\text\{ ?)?(?:is )?(?:at least|greater than or equal to|no less than)(?: ?\})?", r"\\ge "),
        (r"(?:\\text\{ ?)?(?:is )?(?:at most|less than or equal to|no more than)(?: ?\})?", r"\\le "),
        (r"(?:\\text\{ ?)?(?:is )?(?:greater|more|larger) than(?: ?\})?", ">"),
        (r"(?:\\text\{ ?)?(?:is )?(?:less|smaller|fewer) than(?: ?\})?", "<"),
        (r"^(?:from )?(\S+) to (\S+),? inclusive$", r"[\1,\2]"),
        (r"^(?:about|approximately|around|roughly|exactly|约|大约)\s*(?=[\d\\(-])", ""),
        (r"^(?:点|坐标|数值|共有?|第)\s*(?=[\d\\(-])", ""),
    )
]


def equal(reference: str, answer: str, algebra: Algebra | None = None) -> bool | None:
    """Whether an answer means the same as the reference; None if that cannot be told. TooLargeError if one of them has
    parts that are too large to look at."""
    if len(answer) > MAX_CHARS or len(reference) > MAX_CHARS:
        return reference.strip() == answer.strip() and bool(answer.strip())
    return _Comparison(algebra).equal(_canonical(reference), _canonical(answer))


def is_choice(reference: str) -> bool:
    """Whether a reference is the letter of an option."""
    return choice_letter(reference) is not None


def is_text_answer(reference: str) -> bool:
    """Whether a reference is words and no value."""
    return is_text(_canonical(reference))


def has_noun(reference: str) -> bool:
    """Whether a reference counts something that is no known unit: `5 apples`."""
    unit = split_quantity(_canonical(reference))[1]
    return unit is not None and not unit.is_ratio


@lru_cache(maxsize=1024)  # one reference is compared with many answers
def _canonical(text: str) -> str:
    text = normalise(text)
    for pattern, replacement in _PHRASES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    if text[:1] == "(" and closes_at_end(text) and len(split(text[1:-1], ",;")) == 1 and len(text) > 3:
        text = text[1:-1].strip()
    words = plain(text)
    return english_number(words) or symbol_of(words) or text


class _Comparison:
    """One comparison: how formulas are compared at its leaves."""

    def __init__(self, algebra: Algebra | None) -> None:
        self._algebra = algebra

    def equal(self, reference: str, answer: str) -> bool | None:
        if not answer:
            return False
        if reference == answer:
            return True
        left, right = read_number(reference), read_number(answer)
        if left and right:
            return agree(left, right)
        for compare in (
            _moments,
            _decimal_commas,
            self._names,
            self._regions,
            self._ratios,
            self._lists,
            self._brackets,
            self._matrices,
            _bases,
            self._quantities,
            self._texts,
            self._relations,
        ):
            verdict = compare(reference, answer)
            if verdict is not NotImplemented:
                return verdict
        return self.formulas(reference, answer)

    def formulas(self, reference: str, answer: str) -> bool | None:
        if reference == answer:
            return True
        left, right = read_number(reference), read_number(answer)
        if left and right:
            return agree(left, right)
        verdict = formulas.equal(reference, answer)
        if verdict is not None:
            return verdict
        if "\\" not in answer and formulas.is_scalar(reference) and not formulas.is_scalar(answer):
            return False  # no formula, and nothing that a LaTeX parser would read
        return self._algebra(reference, answer) if self._algebra else None

    # Names: `x = e` and `e`, `f(x) = e` and `f(t) = e`, `x = a = b`, `e \approx 0.3`.

    def _names(self, reference: str, answer: str) -> bool | None:
        left, right = _without_approximation(reference), _without_approximation(answer)
        (name, value), (other_name, other) = _split_name(left), _split_name(right)
        if name is None and other_name is None:
            if len(split(right, "=")) > 1 == len(split(left, "=")) == len(split(right, ",;")) and not _JOINT.search(
                right
            ):
                return self._result(left, right)
            return NotImplemented if (left, right) == (reference, answer) else self.equal(left, right)
        if name is not None and other_name is not None:
            renamed = _renamed(name, other_name, other)
            if renamed is not None:
                return self.equal(value, renamed)
            return NotImplemented if (left, right) == (reference, answer) else self.equal(left, right)
        plain_side = right if other_name is None else left
        if len(split(plain_side, "=")) > 1 or RELATION.search(plain_side) or r"\ne" in plain_side:
            return NotImplemented
        return self.equal(value if name is not None else left, other if other_name is not None else right)

    def _result(self, reference: str, answer: str) -> bool | None:
        """A calculation commits to its result; an equation in unknowns is none, but for `m + n = 7`."""
        *steps, result = split(answer, "=")
        sums = all(
            not step or _SUM_OF_NAMES.match(step) or _split_name(f"{step}=0")[0] or formulas.is_constant(step)
            for step in steps
        )
        return self.equal(reference, result) if sums or not formulas.is_constant(reference) else False

    # Regions: intervals, inequalities, unions.

    def _regions(self, reference: str, answer: str) -> bool | None:
        if not any(
            mark in text
            for text in (reference, answer)
            for mark in ("<", ">", r"\le", r"\ge", r"\ne", r"\cup", r"\infty", "mathbb", "]", "[")
        ):
            return NotImplemented
        if is_plain_pair(reference) and is_plain_pair(answer) and closes_at_end(reference) and closes_at_end(answer):
            return NotImplemented
        left, right = read_region(reference), read_region(answer)
        if left is None or right is None:
            if (left is None) != (right is None) and RELATION.search(reference + answer):
                return NotImplemented if RELATION.search(reference) and RELATION.search(answer) else False
            return NotImplemented
        if left[0].low == left[0].high and right[0].low == right[0].high and all(a.low == a.high for a in left + right):
            return NotImplemented  # sets of points
        return self._same_region(left, right)

    def _same_region(self, left: list[Interval], right: list[Interval]) -> bool | None:
        if len(left) == len(right) == 1:
            (one,), (other,) = left, right
            if (one.closed_low, one.closed_high) != (other.closed_low, other.closed_high):
                return False
            return _every([self.equal(one.low, other.low), self.equal(one.high, other.high)])
        return same_region(left, right, formulas.sign)

    # Ratios: `3:4` and `6:8`.

    def _ratios(self, reference: str, answer: str) -> bool | None:
        left, right = _ratio(reference), _ratio(answer)
        if left is None and right is None:
            return NotImplemented
        if left is None or right is None:
            parts, other = (left, answer) if left else (right, reference)
            assert parts
            return self.equal(f"{parts[0]}/{parts[1]}", other) if len(parts) == 2 else False
        if len(left) != len(right):
            return False
        return all(a * right[0] == b * left[0] for a, b in zip(left, right, strict=True))

    # Lists and sets: the same elements in any order.

    def _lists(self, reference: str, answer: str) -> bool | None:
        left, right = _elements(reference), _elements(answer)
        if len(left) == 1 and len(right) == 1:
            if (left[0], right[0]) == (reference, answer):
                return NotImplemented
            return self.equal(left[0], right[0])
        left_named, right_named = _assignments(left), _assignments(right)
        if left_named and right_named:
            if left_named.keys() != right_named.keys():
                return False
            return _every(self.equal(value, right_named[name]) for name, value in left_named.items())
        if left_named or right_named:
            return self._assigned(left_named, left, right_named, right)
        if sequences := self._as_sequences(reference, answer, left, right):
            return self._in_order(*sequences)
        return self._unordered([_value(part) for part in left], [_value(part) for part in right])

    def _assigned(
        self, left_named: dict[str, str], left: list[str], right_named: dict[str, str], right: list[str]
    ) -> bool | None:
        """`x = 1, y = 2` against `(1, 2)` or `1, 2`."""
        named, others = (left_named, right) if left_named else (right_named, left)
        if len(others) == 1 and (sequence := _sequence(others[0])):
            others = sequence[1]
        if len(others) != len(named):
            return False
        values = [value for _, value in sorted(named.items())] if all(map(is_unknown, named)) else list(named.values())
        pairs = zip(values, others, strict=True)
        return _every(self.equal(a, b) if left_named else self.equal(b, a) for a, b in pairs)

    def _as_sequences(
        self, reference: str, answer: str, left: list[str], right: list[str]
    ) -> tuple[list[str], list[str]] | None:
        """A pair in brackets against one without, or in braces: in order."""
        one, other = _sequence(reference), _sequence(answer)
        if one and not other and len(one[1]) == len(right):
            return one[1], right
        if other and not one and len(other[1]) == len(left):
            return left, other[1]
        return None

    def _in_order(self, left: Sequence[str], right: Sequence[str]) -> bool | None:
        return _every(self.equal(a, b) for a, b in zip(left, right, strict=True))

    def _unordered(self, reference: Sequence[str], answer: Sequence[str]) -> bool | None:
        if len(reference) != len(answer):
            return False
        left = list(answer)
        unsure = False
        for wanted in reference:
            verdicts = [self.equal(wanted, found) for found in left]
            if True in verdicts:
                del left[verdicts.index(True)]
            elif None in verdicts:
                unsure = True
            else:
                return False
        return None if unsure else True

    # Tuples, vectors and pairs of ends: elements in order between brackets.

    def _brackets(self, reference: str, answer: str) -> bool | None:
        left, right = _sequence(reference), _sequence(answer)
        if left is None and right is None:
            return NotImplemented
        if left is None or right is None:
            return NotImplemented if "matrix" in reference + answer else False
        (left_ends, left_items), (right_ends, right_items) = left, right
        if len(left_items) != len(right_items):
            return False
        if len(left_items) == 2 and "<>" not in (left_ends, right_ends) and left_ends != right_ends:
            return False  # open for closed
        return self._in_order(left_items, right_items)

    def _matrices(self, reference: str, answer: str) -> bool | None:
        left, right = _matrix(reference), _matrix(answer)
        if left is None and right is None and (determinants := _without_determinants(reference, answer)):
            return self.formulas(*determinants)
        if left is None or right is None:
            if left is None and right is None and "matrix" not in reference + answer:
                return NotImplemented
            if (left or right) and formulas.is_scalar(answer if left else reference):
                return False
            return self._algebra(reference, answer) if self._algebra else None
        if [len(row) for row in left] != [len(row) for row in right]:
            return False
        return _every(
            self.equal(a, b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True)
        )

    # A value with a unit.

    def _quantities(self, reference: str, answer: str) -> bool | None:
        (left, left_unit), (right, right_unit) = split_quantity(reference), split_quantity(answer)
        if left_unit is None and right_unit is None:
            return NotImplemented
        if left_unit and right_unit:
            if left_unit == right_unit:
                return self.equal(left, right)
            if left_unit.dimensions != right_unit.dimensions:
                if {left_unit.is_angle, right_unit.is_angle} == {True} or {left_unit.is_ratio, right_unit.is_ratio} == {
                    True
                }:
                    return self.formulas(_in_base_unit(left, left_unit), _in_base_unit(right, right_unit))
                if _both_pounds(reference, answer):
                    return self.equal(left, right)
                if left_unit.factor == 1 == right_unit.factor and left_unit.is_ratio != right_unit.is_ratio:
                    return self.equal(left, right)  # `5 items` and `5 apples`
                return False
            return self.formulas(_in_base_unit(left, left_unit), _in_base_unit(right, right_unit))
        # One side leaves the unit out; a ratio or an angle may also be given as the plain number it is.
        if is_text(left) or is_text(right):
            return NotImplemented
        as_written = self.equal(left, right)
        unit = left_unit or right_unit
        if as_written or unit is None or not (unit.is_ratio or unit.is_angle) or (unit.is_ratio and unit.factor == 1):
            return as_written
        converted = self.formulas(
            _in_base_unit(left, left_unit) if left_unit else left,
            _in_base_unit(right, right_unit) if right_unit else right,
        )
        return True if converted else None if None in (as_written, converted) else False

    def _texts(self, reference: str, answer: str) -> bool | None:
        if is_text(reference):
            return same_words(reference, answer)
        if is_text(answer):
            return same_words(answer, reference) is True
        return NotImplemented

    # Equations and inequalities that are no region.

    def _relations(self, reference: str, answer: str) -> bool | None:
        if RELATION.match(answer) and not RELATION.match(reference):
            return False  # `at least 10`
        left, right = _chain(reference), _chain(answer)
        if left is None and right is None:
            return NotImplemented
        if left is None or right is None:
            return False
        (left_sides, left_kinds), (right_sides, right_kinds) = left, right
        if left_kinds != right_kinds:
            return False
        same = [self.formulas(a, b) for a, b in zip(left_sides, right_sides, strict=True)]
        if all(same):
            return True
        if len(left_sides) != 2:
            return _every(same)
        directed = left_kinds[0] in ("<", r"\le")
        verdict = formulas.same_relation((left_sides[0], left_sides[1]), (right_sides[0], right_sides[1]), directed)
        if verdict is None and self._algebra:
            return self._algebra(reference, answer)
        return verdict


def _moments(reference: str, answer: str) -> bool | None:
    dates = read_date(reference), read_date(answer)
    if dates[0] and dates[1]:
        return dates[0][1:] == dates[1][1:] and (dates[0][0] == dates[1][0] or None in (dates[0][0], dates[1][0]))
    times = read_time(reference), read_time(answer)
    return times[0] == times[1] if times[0] and times[1] else NotImplemented


def _decimal_commas(reference: str, answer: str) -> bool | None:
    """`3,14` for 3.14, if that is what makes it equal."""
    for text, other in ((reference, answer), (answer, reference)):
        number = read_number(other)
        if number and _COMMA_DECIMAL.match(text):
            read = read_number(text.replace(".", "").replace(",", "."))
            if read and read.value == number.value:
                return True
    return NotImplemented


def _bases(reference: str, answer: str) -> bool | None:
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
        base = match[2] or match[3] or english_number(match[4] or "")
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


def _without_approximation(text: str) -> str:
    """`e \\approx 0.3` commits to e; `x \\approx 0.3` to 0.3."""
    parts = [part.strip() for part in _APPROXIMATE.split(text)]
    if len(parts) == 1 or not parts[0]:
        return parts[-1] if len(parts) > 1 else text
    return f"{parts[0]}={parts[1]}" if _NAME.match(parts[0]) and not read_number(parts[0]) else parts[0]


def _split_name(text: str) -> tuple[str | None, str]:
    r"""`f(x)` and `e` of `f(x) = e`; None and the text if it is no such equation. Of `x = a = b`, b is the value. A
    name holds for a list behind it: `n = 1, 2`."""
    name, *values = split(text, "=")
    found, value = bool(values), "=".join(values)
    if r"\mapsto" in text or (r"\to" in text and "=" not in text and "lim" not in text):
        name, value = (part.strip() for part in re.split(r"\\mapsto|\\to", text, maxsplit=1))
        name, found = f"f({name})", True
    if not found or not value or re.search(r"[<>]|\\[lgn]e(?![a-z])", name):
        return None, text
    if not (_NAME.match(name) and not _is_function_word(name)) and not _TUPLE_NAME.match(name):
        return None, text
    if len(values) > 1:
        if len(split(value, ",;")) > 1 or _JOINT.search(value):
            return None, text
        value = values[-1]
    return name, value.strip()


def _is_function_word(name: str) -> bool:
    return re.match(r"^\\(?:sin|cos|tan|log|ln|exp|frac|sqrt|sum|int|lim|pi|infty|le|ge|ne|pm)", name) is not None


def _renamed(name: str, other_name: str, other: str) -> str | None:
    """The other value in the names of the first; None if the two are names of different things."""
    left, right = _NAME.match(name), _NAME.match(other_name)
    if name == other_name:
        return other
    if left is None or right is None:
        return None
    is_function, is_other = bool(left[2]), bool(right[2])
    if is_function and is_other:
        old, new = right[2].split(","), left[2].split(",")
        if len(old) != len(new) or any(read_number(part) for part in old + new):
            return None
        return _rename(other, old, new)
    return other if (is_function and other_name == "y") or (is_other and name == "y") else None


def _rename(expression: str, old: Sequence[str], new: Sequence[str]) -> str:
    names = dict(zip(old, new, strict=True))
    return re.sub(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])", lambda match: names.get(match[0], match[0]), expression)


def _ratio(text: str) -> list[Fraction] | None:
    parts = re.split(r"\s*:\s*|\s+to\s+|\\text\{ ?to ?\}", text)
    numbers = [read_number(part) for part in parts]
    if len(parts) < 2 or not all(numbers):
        return None
    values = [number.value for number in numbers if number]
    return values if all(values) else None


def _elements(text: str) -> list[str]:
    """The elements of a list, a set or a union of sets; one for anything else."""
    pieces = re.split(r"\\cup(?![a-z])", text)
    if len(pieces) > 1 and all(piece.strip().startswith(r"\{") for piece in pieces):
        found = dict.fromkeys(part for piece in pieces for part in _elements(piece.strip()))
        return list(found)
    if text.startswith(r"\{") and text.endswith(r"\}") and closes_at_end(text, 1):
        text = text[2:-2].strip()
        if not text:
            return [r"\emptyset"]
    elif _sequence(text) or _rows(text):
        return [text]
    if is_text(text) and not _JOINT.search(text) and "," not in text:
        return [text]
    parts = [part for joined in _JOINT.split(text) for part in split(joined, ",;")]
    return [value for part in parts if part.strip() for value in _both_signs(part.strip())] or [text]


def _both_signs(text: str) -> list[str]:
    sign = r"\pm" if r"\pm" in text else r"\mp"
    if text.count(r"\pm") + text.count(r"\mp") != 1:
        return [text]
    before, _, after = text.partition(sign)
    plus = "+" if before.rstrip(" =({") and not before.rstrip().endswith("=") else ""
    return [before + plus + after.lstrip(), f"{before}-{after.lstrip()}"]


def _assignments(parts: Sequence[str]) -> dict[str, str]:
    """`x = 1, y = 2` by name; empty for anything else, and where a name comes twice."""
    if len(parts) < 2 and not (parts and _TUPLE_NAME.match(parts[0].partition("=")[0].strip())):
        return {}
    if len(parts) == 1:
        name, _, value = parts[0].partition("=")
        sequence, names = _sequence(value.strip()), name.strip()[1:-1].split(",")
        return dict(zip(names, sequence[1], strict=True)) if sequence and len(sequence[1]) == len(names) else {}
    pairs = [_split_name(part) for part in parts]
    named = {name: value for name, value in pairs if name is not None}
    return named if len(named) == len(parts) else {}


def _value(text: str) -> str:
    return _split_name(text)[1]


def _sequence(text: str) -> tuple[str, list[str]] | None:
    """The brackets of an ordered sequence and its elements; `<>` for those of vectors."""
    if match := _VECTOR.match(text):
        rows = _matrix_rows(match[1])
        if len(rows) == 1 or all(len(row) == 1 for row in rows):
            return "<>", [cell for row in rows for cell in row]
        return None
    for opening, closing in ((r"\langle", r"\rangle"), ("<", ">")):
        if text.startswith(opening) and text.endswith(closing) and "," in text:
            return "<>", split(text[len(opening) : -len(closing)], ",")
    if (
        r"\unit" in text
        and (parts := _UNIT_VECTORS.findall(text))
        and "".join(_UNIT_VECTORS.sub("", text).split()) == ""
    ):
        values = {name: coefficient.strip().removeprefix("+") for coefficient, name in parts}
        names = "ijk" if "k" in values else "ij"
        return "<>", [{"": "1", "-": "-1"}.get(values.get(name, "0"), values.get(name, "0")) for name in names]
    if text and text[0] in "([" and text[-1] in ")]" and closes_at_end(text):
        items = split(text[1:-1], ",;")
        if len(items) > 1 and all(item.startswith("[") for item in items):
            rows = [split(item[1:-1], ",") for item in items]
            return ("<>", [row[0] for row in rows]) if all(len(row) == 1 for row in rows) else None
        return (text[0] + text[-1], items) if len(items) > 1 else None
    return None


def _rows(text: str) -> list[list[str]] | None:
    """The rows of a matrix of more than one row and column."""
    if (match := _VECTOR.match(text)) and match[1].count("pmatrix") == 0:
        rows = _matrix_rows(match[1])
        return rows if len(rows) > 1 and len(rows[0]) > 1 else None
    if text.startswith("Matrix("):
        text = text[7:-1]
    if text.startswith("[") and text.endswith("]") and closes_at_end(text):
        items = split(text[1:-1], ",")
        if len(items) > 1 and all(item.startswith("[") and item.endswith("]") for item in items):
            return [split(item[1:-1], ",") for item in items]
    return None


def _matrix(text: str) -> list[list[str]] | None:
    """The cells of a matrix, or of a sum of matrices with factors, as formulas; a column has rows of one cell."""
    if rows := _rows(text):
        return rows
    terms = _MATRIX_TERM.findall(text) if "pmatrix" in text else []
    if not 0 < len(terms) <= MAX_MATRICES or _MATRIX_TERM.sub("", text).strip():
        return None
    total: list[list[str]] | None = None
    for written, content, transposed in terms:
        factor = written.strip().removesuffix(r"\cdot").strip()
        cells = _matrix_rows(content)
        if transposed:
            cells = [list(column) for column in zip(*cells, strict=False)]
        if total is None:
            total = _scaled(cells, factor)
        elif not factor:
            total = _product(total, cells)
        else:
            total = _sum(total, _scaled(cells, factor))
        if total is None:
            return None
    return total


def _scaled(cells: list[list[str]], factor: str) -> list[list[str]]:
    factor = factor + "1" if factor in ("", "+", "-") else factor
    return [[f"{factor}\\cdot({cell})" for cell in row] for row in cells]


def _sum(left: list[list[str]], right: list[list[str]]) -> list[list[str]] | None:
    if [len(row) for row in left] != [len(row) for row in right]:
        return None
    pairs = (zip(one, other, strict=True) for one, other in zip(left, right, strict=True))
    return [[f"{a}{b}" if b[0] in "+-" else f"{a}+{b}" for a, b in row] for row in pairs]


def _product(left: list[list[str]], right: list[list[str]]) -> list[list[str]] | None:
    columns = list(zip(*right, strict=False))
    if any(len(row) != len(right) for row in left):
        return None
    return [["+".join(f"({a})({b})" for a, b in zip(row, column, strict=True)) for column in columns] for row in left]


def _without_determinants(reference: str, answer: str) -> tuple[str, str] | None:
    """Both with determinants of two rows multiplied out; None if there are none."""
    both = tuple(_DETERMINANT.sub(r"((\1)(\4)-(\2)(\3))", text) for text in (reference, answer))
    return both if both != (reference, answer) else None  # type: ignore[return-value]


def _matrix_rows(text: str) -> list[list[str]]:
    rows = re.split(r"\\\\(?:\[[^\]]*\])?|\\cr(?![a-z])", text)
    return [[cell.strip() for cell in row.split("&")] for row in rows if row.strip(" &")]


def _chain(text: str) -> tuple[list[str], list[str]] | None:
    """The sides of an equation or a chain of inequalities, smallest first, and the relations between them."""
    if len(split(text, ",;")) > 1:
        return None
    sides, kinds = split_at(text, _ANY_RELATION)
    if not kinds or not all(sides):
        return None
    if all(kind in (">", r"\ge") for kind in kinds):
        return sides[::-1], [MIRRORED[kind] for kind in reversed(kinds)]
    return sides, kinds


def _both_pounds(reference: str, answer: str) -> bool:
    return "£" in reference + answer and "pound" in reference + answer


def _in_base_unit(value: str, unit: Unit) -> str:
    number: Number | None = read_number(value)
    pi = r"\cdot\pi/180" if unit.is_angle and unit.dimensions[0][0] != "rad" else ""
    if number and not pi:
        result = number.value * unit.factor + unit.offset
        return f"{result.numerator}/{result.denominator}"
    return rf"\frac{{{unit.factor.numerator}}}{{{unit.factor.denominator}}}\cdot({value}){pi}"


def _every(verdicts: Iterable[bool | None]) -> bool | None:
    unsure = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unsure |= verdict is None
    return None if unsure else True
