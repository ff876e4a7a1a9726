"""Structure of answers: names, relations, lists, brackets, matrices, units. Formulas inside are left to `formulas`.

Truth has three values here: None says that it could not be decided without algebra, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from services.reward.equality import formulas
from services.reward.equality.bases import same_in_base
from services.reward.equality.brackets import closes_at_end, split, split_at
from services.reward.equality.chains import contradicts_itself
from services.reward.equality.marks import read_marks, read_parts, split_option
from services.reward.equality.matrices import matrix_of, without_determinants
from services.reward.equality.moments import read_date, read_time
from services.reward.equality.names import (
    assignments,
    rename,
    renamed,
    solutions,
    split_name,
    value_of,
    without_approximation,
)
from services.reward.equality.notation import MAX_CHARS, normalise
from services.reward.equality.numbers import Number, agree, read_number
from services.reward.equality.numerals import english_number, numbered
from services.reward.equality.piecewise import read_pieces, same_as_formula, same_function
from services.reward.equality.progressions import is_list_of, read_progression, same_progression, up_to
from services.reward.equality.regions import (
    MIRRORED,
    RELATION,
    Interval,
    is_plain_pair,
    read_region,
    same_region,
)
from services.reward.equality.remarks import letters_of, with_letter, without_remark
from services.reward.equality.sequences import JOINT, as_vector, elements, holds_sets, sequence_of, set_of
from services.reward.equality.units import Unit, split_glued, split_quantity
from services.reward.equality.words import (
    choice_letter,
    is_statement,
    is_text,
    is_verdict,
    plain,
    same_words,
    symbol_of,
)
from services.reward.remembered import remembered

Algebra = Callable[[str, str], bool | None]
"""Tells whether two formulas, reference first, have the same value, by whatever takes long."""

_SUM_OF_NAMES = re.compile(r"^-?[a-zA-Z](?:_\w)?(?:[-+*/]?[a-zA-Z](?:_\w)?)*$")
_ANY_RELATION = re.compile(r"\\(?:le|ge|ne|equiv)(?![a-z])|<|>|=")
_CONGRUENCE = re.compile(
    r"^(?:([a-zA-Z]) ?(?:\\equiv|=) ?)?(-?\d+) ?\(?(?:\\[pb]?mod|\\text\{ ?\(?mod ?\}|mod) ?\{?(\d+)\}?\)?$"
)
# `n \in \mathbb{Z}` behind a formula: all its values, for any whole n.
_PARAMETER = re.compile(
    r"[,;]? ?(?:\\text\{[ ,]*)?(?:where|with|for)?(?: (?:all|any|every|some))? ?(?:integers? )?\}?\(?([a-z])(?:\}? ?"
    r"(?:\\in\\mathbb\{([ZN])\}|\\text\{ ?is (?:an|any) integer\}|is (?:an|any) integer)|(?<=integer [a-z])\}?)\)?$"
)
_OR = re.compile(rf"{JOINT.pattern}|\\lor(?![a-z])")
_LETTERS = re.compile(r"^[A-J](?:[,; ]*(?:and )?[A-J])+$")
_COMMA_DECIMAL = re.compile(r"^-?(?:\d{1,3}(?:\.\d{3})+,\d+|\d+,\d{1,2}|0,\d+|\d{4,},\d+)$")
# `x \in` before an interval or a set.
_MEMBER = re.compile(
    r"(?<![a-zA-Z\\{])(?<!\\forall )"
    r"(?:[a-zA-Z]|\\[a-z]+|\([a-z](?:,[a-z])+\))(?:_\w)?(?:\([a-z]\))? ?\\in(?= ?(?:[(\[\]]|\\\{|\\emptyset))"
)
_PHRASES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?:\\text\{ ?)?(?:is )?(?:at least|greater than or equal to|no less than)(?: ?\})?", r"\\ge "),
        (r"(?:\\text\{ ?)?(?:is )?(?:at most|less than or equal to|no more than)(?: ?\})?", r"\\le "),
        (r"(?:\\text\{ ?)?(?:is )?(?:greater|more|larger) than(?: ?\})?", ">"),
        (r"(?:\\text\{ ?)?(?:is )?(?:less|smaller|fewer) than(?: ?\})?", "<"),
        (r"^(?:from )?(\S+) to (\S+),? inclusive$", r"[\1,\2]"),
        (r"^between (\S+) and (\S+)$", r"(\1,\2)"),
        (r"^(?:\\text\{)?all (?:real numbers|reals) except(?: for)?(?: [a-z]=)? ?\}? ?", r"\\mathbb{R}\\setminus"),
        (r"\\mathbb\{R\}\\setminus([^\\{}]+)$", r"\\mathbb{R}\\setminus\\{\1\\}"),
        (r"(?:大于(?:或?等于)|不小于|至少)(?= ?[-\d\\(])", r"\\ge "),
        (r"(?:小于(?:或?等于)|不大于|至多)(?= ?[-\d\\(])", r"\\le "),
        (r"大于(?= ?[-\d\\(])", ">"),
        (r"小于(?= ?[-\d\\(])", "<"),
        (r"^(?:about|approximately|around|roughly|exactly|约|大约)\s*(?=[\d\\(-])", ""),
        (r"^the (?=-?\d)", ""),
        (r"^(?:点|坐标|数值|共有?|第)\s*(?=[\d\\(-])", ""),
    )
]


def equal(reference: str, answer: str, algebra: Algebra | None = None) -> bool | None:
    """Tests whether an answer means the same as the reference; None if that is undecided. TooLargeError if one of
    them has parts that are too large to look at."""
    if len(answer) > MAX_CHARS or len(reference) > MAX_CHARS:
        return reference.strip() == answer.strip() and bool(answer.strip())
    wanted, found = _canonical(reference), _canonical(answer)
    if wanted != found and contradicts_itself(found, _Comparison(None).equal):
        return False
    return _Comparison(algebra).equal(wanted, found)


def contradicts(answer: str) -> bool:
    """Tests whether an answer is a chain of equalities that does not hold: `2 + 2 = 5`."""
    return contradicts_itself(_canonical(answer), _Comparison(None).equal)


def is_choice(reference: str) -> bool:
    """Tests whether a reference is the letter of an option."""
    return choice_letter(reference) is not None


def is_text_answer(reference: str) -> bool:
    """Tests whether a reference is words and no value."""
    return is_text(_canonical(reference))


def has_noun(reference: str) -> bool:
    """Tests whether a reference counts something that is no known unit: `5 apples`."""
    unit = split_quantity(_canonical(reference))[1]
    return unit is not None and not unit.is_ratio


@remembered  # one reference is compared with many answers
def _canonical(text: str) -> str:
    text = normalise(text)
    for pattern, replacement in _PHRASES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    if r"\equiv" in text and "mod" not in text:
        text = text.replace(r"\equiv", "=")
    if text[:1] == "(" and closes_at_end(text) and len(split(text[1:-1], ",;")) == 1 and len(text) > 3:
        text = text[1:-1].strip()
    text = _MEMBER.sub("", text)
    words = plain(text)
    return english_number(words) or symbol_of(words) or numbered(words) or text


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
            _verdicts,
            _moments,
            _letters,
            _marks,
            self._options,
            self._parts,
            _decimal_commas,
            _congruences,
            self._pieces,
            self._families,
            self._remarks,
            self._progressions,
            self._sets,
            self._names,
            self._regions,
            self._ratios,
            self._lists,
            self._brackets,
            self._matrices,
            same_in_base,
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

    # Marks: `(B) 12` and `12`, `(1) 3; (2) 4` and `3, 4`.

    def _options(self, reference: str, answer: str) -> bool | None:
        wanted, found = split_option(reference), split_option(answer)
        if wanted is None:
            return NotImplemented
        if found:
            return found[0] == wanted[0] and self.equal(wanted[1], found[1])
        letter = choice_letter(answer)
        return letter == wanted[0] if letter else self.equal(wanted[1], answer)

    def _parts(self, reference: str, answer: str) -> bool | None:
        wanted, found = read_parts(reference), read_parts(answer)
        if wanted is None and found is None:
            return NotImplemented
        wanted, found = wanted or split(reference, ",;"), found or split(answer, ",;")
        return len(wanted) == len(found) and self._in_order(wanted, found)

    # Functions in pieces.

    def _pieces(self, reference: str, answer: str) -> bool | None:
        wanted, found = read_pieces(reference), read_pieces(answer)
        if wanted and found:
            return same_function(wanted, found, self.equal)
        if wanted or found:
            return same_as_formula(wanted or found or [], value_of(answer if wanted else reference))
        return NotImplemented

    # Families: `\pi/4 + n\pi, n \in \mathbb{Z}`.

    def _families(self, reference: str, answer: str) -> bool | None:
        left, right = _PARAMETER.search(reference), _PARAMETER.search(answer)
        if left is None and right is None:
            return NotImplemented
        if left and right and (left[2] or "Z") != (right[2] or "Z"):
            return False
        body = reference[: left.start()] if left else reference
        other = answer[: right.start()] if right else answer
        if left and right:
            other = rename(other, [right[1]], [left[1]])
        if (verdict := self.equal(body, other)) is not False:
            return verdict
        stated = left or right
        assert stated
        return stated[2] != "N" and formulas.same_progression(value_of(body), value_of(other), (left or stated)[1])

    # Remarks: `2x \text{ for all } x`.

    def _remarks(self, reference: str, answer: str) -> bool | None:
        left, right = without_remark(reference), without_remark(answer)
        if (left.body, right.body) == (reference, answer):
            return NotImplemented
        if left.condition and right.condition and self.equal(left.condition, right.condition) is False:
            return False
        verdict = self.equal(left.body, right.body)
        if verdict is not False:
            return verdict
        # A constant by another name.
        letters = letters_of(left.body) - letters_of(right.body)
        others = {with_letter(right.body, old, new) for old in right.declares() for new in letters} - {right.body}
        return any(self.equal(left.body, other) for other in others)

    # Lists that go on, and sets of sets.

    def _progressions(self, reference: str, answer: str) -> bool | None:
        left, right = read_progression(reference), read_progression(answer)
        if left and right:
            verdict = same_progression(left, right)
            return NotImplemented if verdict is None else verdict
        if (wanted := up_to(reference)) and (found := up_to(answer)):
            same = same_progression(wanted[0], found[0])
            return self.equal(wanted[1], found[1]) if same else NotImplemented if same is None else False
        if left and not left.is_endless:
            return is_list_of(left, elements(value_of(answer)))
        if right and not right.is_endless:
            return is_list_of(right, elements(value_of(reference)))
        return NotImplemented

    def _sets(self, reference: str, answer: str) -> bool | None:
        left, right = set_of(reference), set_of(answer)
        if not holds_sets(left) and not holds_sets(right):
            return NotImplemented
        if left is None or right is None:
            return NotImplemented if r"\cup" in reference + answer else False
        sides = [
            ([m for m in members if set_of(m) is not None], [m for m in members if set_of(m) is None])
            for members in (left, right)
        ]
        return _every(self._unordered(wanted, found) for wanted, found in zip(*sides, strict=True))

    # Names: `x = e` and `e`, `f(x) = e` and `f(t) = e`, `x = a = b`, `e \approx 0.3`.

    def _names(self, reference: str, answer: str) -> bool | None:
        if _is_mixed(reference) or _is_mixed(answer):
            return NotImplemented
        left, right = without_approximation(reference), without_approximation(answer)
        (name, value), (other_name, other) = split_name(left), split_name(right)
        if name is None and other_name is None:
            if len(split(right, "=")) > 1 == len(split(left, "=")) == len(split(right, ",;")) and not JOINT.search(
                right
            ):
                return self._result(left, right)
            return NotImplemented if (left, right) == (reference, answer) else self.equal(left, right)
        if name is not None and other_name is not None:
            found = renamed(name, other_name, other)
            if found is not None:
                return self.equal(value, found)
            return NotImplemented if (left, right) == (reference, answer) else self.equal(left, right)
        plain_side = right if other_name is None else left
        if len(split(plain_side, "=")) > 1 or RELATION.search(plain_side) or r"\ne" in plain_side:
            return NotImplemented
        return self.equal(value if name is not None else left, other if other_name is not None else right)

    def _result(self, reference: str, answer: str) -> bool | None:
        """A calculation commits to its result; an equation in unknowns is none, but for `m + n = 7`."""
        *steps, result = split(answer, "=")
        sums = all(
            not step
            or _SUM_OF_NAMES.match(step)
            or split_name(f"{step}=0")[0]
            or formulas.is_constant(split_quantity(step)[0])
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
        left, right = (read_region(text, formulas.sign) for text in (reference, answer))
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
        left, right = (solutions(text) or elements(text) for text in (reference, answer))
        if len(left) == 1 and is_text(reference) and is_text(answer):
            return NotImplemented  # `Yes, it does`
        if len(left) == 1 and len(right) == 1:
            if (left[0], right[0]) == (reference, answer):
                return NotImplemented
            return self.equal(left[0], right[0])
        left_named, right_named = assignments(left), assignments(right)
        if left_named and right_named:
            if left_named.keys() != right_named.keys():
                return False
            return _every(self.equal(value, right_named[name]) for name, value in left_named.items())
        if left_named or right_named:
            return self._assigned(left_named, left, right_named, right)
        if sequences := self._as_sequences(reference, answer, left, right):
            return self._in_order(*sequences)
        return self._unordered([value_of(part) for part in left], [value_of(part) for part in right])

    def _assigned(
        self, left_named: dict[str, str], left: list[str], right_named: dict[str, str], right: list[str]
    ) -> bool | None:
        """`x = 1, y = 2` against `(1, 2)` or `1, 2`."""
        named, others = (left_named, right) if left_named else (right_named, left)
        if len(others) == 1 and (sequence := sequence_of(others[0])):
            others = sequence[1]
        if len(others) != len(named):
            return False
        orders = [list(named.values()), [value for _, value in sorted(named.items())]]
        verdicts = [
            self._in_order(values, others) if left_named else self._in_order(others, values) for values in orders
        ]
        return True if True in verdicts else None if None in verdicts else False

    def _as_sequences(
        self, reference: str, answer: str, left: list[str], right: list[str]
    ) -> tuple[list[str], list[str]] | None:
        """A pair in brackets against one without, or in braces: in order."""
        one, other = sequence_of(reference), sequence_of(answer)
        if one and not other and len(left) == 1 and len(one[1]) == len(right):
            return one[1], right
        if other and not one and len(right) == 1 and len(other[1]) == len(left):
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
        left, right = sequence_of(reference), sequence_of(answer)
        if left is None and right is None:
            return NotImplemented
        if left is None:
            left = sequence_of(as_vector(reference))
        elif right is None:
            right = sequence_of(as_vector(answer))
        if left is None or right is None:
            return NotImplemented if "matrix" in reference + answer else False
        (left_ends, left_items), (right_ends, right_items) = left, right
        if len(left_items) != len(right_items):
            return False
        if len(left_items) == 2 and "<>" not in (left_ends, right_ends) and left_ends != right_ends:
            return False  # open for closed
        return self._in_order(left_items, right_items)

    def _matrices(self, reference: str, answer: str) -> bool | None:
        left, right = matrix_of(reference), matrix_of(answer)
        if left is None and right is None and (determinants := without_determinants(reference, answer)):
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
        if left_unit is None:
            left, left_unit = split_glued(reference, right_unit)
        if right_unit is None:
            right, right_unit = split_glued(answer, left_unit)
        if left_unit and right_unit:
            if left_unit == right_unit:
                return self.equal(left, right)
            if left_unit.dimensions != right_unit.dimensions:
                if {left_unit.is_angle, right_unit.is_angle} == {True} or {left_unit.is_ratio, right_unit.is_ratio} == {
                    True
                }:
                    return self.formulas(_in_base_unit(left, left_unit), _in_base_unit(right, right_unit))
                if _same_currency(reference, answer):
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


def _verdicts(reference: str, answer: str) -> bool | None:
    if is_verdict(reference):
        return same_words(reference, answer)
    return True if is_statement(reference) and same_words(reference, answer) else NotImplemented


def _letters(reference: str, answer: str) -> bool | None:
    """`ABD` and `A, B, D`: several options of one question."""
    left, right = (_LETTERS.match(text) and re.findall("[A-J](?![a-z])", text) for text in (reference, answer))
    if not left or not right or reference.isalpha() == answer.isalpha():
        return NotImplemented
    return sorted(left) == sorted(right)


def _marks(reference: str, answer: str) -> bool | None:
    """`I and III` and `(i), (iii)`."""
    left, right = read_marks(reference), read_marks(answer)
    return left == right if left and right else NotImplemented


def _is_mixed(text: str) -> bool:
    """Tests whether it is values and inequalities: `x = 3 or x > 5`."""
    if "=" not in text or not RELATION.search(text):
        return False
    parts = [part for joined in _OR.split(text) for part in split(joined, ",;")]
    return any("=" in part for part in parts) and any("=" not in part and RELATION.search(part) for part in parts)


def _moments(reference: str, answer: str) -> bool | None:
    dates = read_date(reference), read_date(answer)
    if dates[0] and dates[1]:
        return dates[0][1:] == dates[1][1:] and (dates[0][0] == dates[1][0] or None in (dates[0][0], dates[1][0]))
    times = read_time(reference), read_time(answer)
    return times[0][:3] == times[1][:3] if times[0] and times[1] else NotImplemented


def _congruences(reference: str, answer: str) -> bool | None:
    """`14 \\pmod{15}` and `x \\equiv -1 \\pmod{15}`."""
    left, right = _CONGRUENCE.match(reference), _CONGRUENCE.match(answer)
    if left and right:
        modulus = int(left[3])
        return modulus == int(right[3]) > 0 and (int(left[2]) - int(right[2])) % modulus == 0
    congruence, other = (left, answer) if left else (right, reference)
    number = read_number(value_of(other)) if congruence else None
    return number.value == int(congruence[2]) if congruence and number else NotImplemented


def _decimal_commas(reference: str, answer: str) -> bool | None:
    """`3,14` for 3.14, if that is what makes it equal."""
    for text, other in ((reference, answer), (answer, reference)):
        number = read_number(other)
        if number and _COMMA_DECIMAL.match(text):
            read = read_number(text.replace(".", "").replace(",", "."))
            if read and read.value == number.value:
                return True
    return NotImplemented


def _ratio(text: str) -> list[Fraction] | None:
    parts = re.split(r"\s*[:比]\s*|\s+to\s+|\\text\{ ?to ?\}", text)
    numbers = [read_number(part) for part in parts]
    if len(parts) < 2 or not all(numbers):
        return None
    values = [number.value for number in numbers if number]
    return values if all(values) else None


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


def _same_currency(reference: str, answer: str) -> bool:
    """Pounds are a weight too, and ¥ is yuan as well as yen."""
    both = reference + answer
    return ("£" in both and "pound" in both) or ("¥" in both and "yen" in both)


def _in_base_unit(value: str, unit: Unit) -> str:
    number: Number | None = read_number(value)
    if number and number.half_unit and unit.factor == Fraction(1, 100) and not unit.dimensions:
        return f"{value.replace(',', '')}e-2"  # a rounded percentage is a rounded fraction
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
