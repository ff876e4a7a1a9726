"""The answer is JSON: of a schema, or equal to the reference."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from decimal import Decimal, DecimalException, localcontext
from typing import Any, Literal

from pydantic import Field, field_validator

from perilune.errors import InvalidInputError
from services.reward.fences import read_answer
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict

MAX_CHARS = 200_000
MAX_DEPTH = 100
MAX_CHARS_KEPT = 4096
MAX_INT_DIGITS = 1000  # of a whole number that is kept as one; a larger one is a Decimal, as fractions are
_SPACE = "\ufeff \t\r\n"
_FENCE = re.compile(r"`{3,}|~{3,}")
_TAG = re.compile(r"json\b\s*", re.IGNORECASE)
_SCALARS = (str, int, Decimal, bool, type(None))


class JsonOptions(GraderOptions):
    """Options of the grader `json`."""

    json_schema: str = Field(
        "",
        description="a JSON Schema that the answer has to fulfil, of the draft that its `$schema` names, else 2020-12",
    )
    compare: Literal["none", "equal", "contains"] = Field(
        "equal", description="with the reference, if there is one; `contains`: keys and items beyond it are fine"
    )
    unordered: bool = Field(False, description="the order of items in lists does not matter")

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, schema: str) -> str:
        if schema:
            from services.reward.schemas import check_schema  # only this grader needs it

            check_schema(parse(schema))
            if len(schema) > MAX_CHARS_KEPT:  # its patterns were compiled, and `re` keeps the last 512
                re.purge()
        return schema


def parse(text: str) -> Any:
    """Strict JSON: no NaN, no key twice; numbers are exact (int or Decimal). ValueError says what is wrong."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"longer than {MAX_CHARS:,} characters")
    try:
        found = json.loads(
            text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant, parse_float=_number, parse_int=_number
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _is_deeper(found, MAX_DEPTH):
        raise ValueError("nested too deeply")
    return found


def grade(sample: GradingSample, options: JsonOptions) -> Verdict | None:
    """The verdict, or None where only the work of another process can tell."""
    compares = _compares(sample, options)
    if not compares and not options.json_schema:
        raise InvalidInputError("nothing to compare with: give a reference, or the option `json_schema`")
    text = _answer(sample.response)
    try:
        answer = parse(text)
    except ValueError as error:
        return Verdict(0.0, {"answer": text, "why": f"no JSON: {error}"})
    # Matching items in any order can take long, and a schema can hold regular expressions that take for ever.
    if compares and not (options.unordered and options.compare == "contains"):
        if not _is_right(sample, options, answer):
            return _differs(text)
        compares = False
    return None if compares or options.json_schema else Verdict(1.0, {"answer": text})


def work(sample: GradingSample, options: JsonOptions) -> Verdict:
    """The verdict, in a process of its own that may be killed."""
    text = _answer(sample.response)
    answer = parse(text)
    if _compares(sample, options) and not _is_right(sample, options, answer):
        return _differs(text)
    if options.json_schema:
        from services.reward.schemas import violation

        why = violation(parse(options.json_schema), answer)
        return Verdict.of(not why, answer=text, **({"why": why} if why else {}))
    return Verdict(1.0, {"answer": text})


def _compares(sample: GradingSample, options: JsonOptions) -> bool:
    return bool(sample.reference.strip()) and options.compare != "none"


def _differs(text: str) -> Verdict:
    return Verdict(0.0, {"answer": text, "why": "another value than the reference"})


def _is_right(sample: GradingSample, options: JsonOptions, answer: Any) -> bool:
    try:
        reference = parse(sample.reference.strip(_SPACE))
    except ValueError as error:
        raise InvalidInputError(f"the reference is no JSON: {error}") from error
    if options.compare == "contains":
        return _contains(reference, answer, options.unordered)
    return _key(reference, options.unordered) == _key(answer, options.unordered)


# What is compared.


def _answer(response: str) -> str:
    """All of the text if it is JSON; else the last fenced block that is, first of those that say so."""
    answer = read_answer(response)
    text = answer.text.strip(_SPACE)
    if not ("```" in text or "~~~" in text) or _is_json(text):
        return text
    tagged = [block.text.strip(_SPACE) for block in answer.blocks if block.tag == "json"]
    untagged = [block.text.strip(_SPACE) for block in answer.blocks if not block.tag]
    for group in (tagged, untagged, [_between_fences(line) for line in text.splitlines()], [_between_fences(text)]):
        if readable := [content for content in group if _is_json(content)]:
            return readable[-1]
    return (tagged or untagged or [text])[-1]


def _between_fences(text: str) -> str:
    """Returns what is behind the first fence and before the last, where fences share a line with what they hold."""
    fences = [found.span() for found in _FENCE.finditer(text)]
    if not fences:
        return ""
    end = fences[-1][0] if len(fences) > 1 else len(text)
    start = _TAG.match(text, fences[0][1])
    return text[start.end() if start else fences[0][1] : end].strip(_SPACE)


def _is_json(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


# Values.


def _key(value: Any, unordered: bool) -> Hashable:
    """A value that is equal for equal JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return "object", frozenset((name, _key(item, unordered)) for name, item in value.items())
    if isinstance(value, list):
        items = [_key(item, unordered) for item in value]
        return "list", frozenset(Counter(items).items()) if unordered else tuple(items)
    return isinstance(value, bool), value


def _contains(reference: Any, answer: Any, unordered: bool) -> bool:
    if isinstance(reference, dict) and isinstance(answer, dict):
        return reference.keys() <= answer.keys() and all(
            _contains(value, answer[key], unordered) for key, value in reference.items()
        )
    if isinstance(reference, list) and isinstance(answer, list):
        if len(reference) > len(answer):
            return False
        return _has_all(reference, answer) if unordered else _has_in_order(reference, answer)
    return _key(reference, unordered) == _key(answer, unordered)


def _has_in_order(reference: Sequence[Any], answer: Sequence[Any]) -> bool:
    """Tests whether the items are among the answer's, one behind the other."""
    rest = iter(answer)
    return all(any(_contains(wanted, found, False) for found in rest) for wanted in reference)


def _has_all(reference: Sequence[Any], answer: Sequence[Any]) -> bool:
    """Tests whether each item has an item of the answer to itself: scalars by counting, the rest by augmenting
    paths."""
    wanted, found = (
        [_key(item, True) for item in items if isinstance(item, _SCALARS)] for items in (reference, answer)
    )
    if Counter(wanted) - Counter(found):
        return False
    left, right = ([item for item in items if not isinstance(item, _SCALARS)] for items in (reference, answer))
    fits = [[place for place, item in enumerate(right) if _contains(one, item, True)] for one in left]
    item_at: dict[int, int] = {}
    place_of: dict[int, int] = {}
    return all(_place(one, fits, item_at, place_of) for one in range(len(left)))


def _place(one: int, fits: Sequence[Sequence[int]], item_at: dict[int, int], place_of: dict[int, int]) -> bool:
    """Gives an item a place; items that have one move where that makes room."""
    comes_from: dict[int, int] = {}
    waiting = [one]
    for item in waiting:
        for place in fits[item]:
            if place in comes_from:
                continue
            comes_from[place] = item
            if place in item_at:
                waiting.append(item_at[place])
                continue
            free: int | None = place
            while free is not None:
                moved = comes_from[free]
                left = place_of.get(moved)
                item_at[free], place_of[moved], free = moved, free, left
            return True
    return False


def _number(text: str) -> int | Decimal:
    try:
        number = Decimal(text)
    except DecimalException as error:
        raise ValueError(f"a number out of range: {text:.40}") from error
    if not number.is_finite():
        raise ValueError(f"a number out of range: {text:.40}")
    with localcontext(prec=MAX_INT_DIGITS):
        is_small = number.adjusted() < MAX_INT_DIGITS and number.as_tuple().exponent > -MAX_INT_DIGITS  # type: ignore[operator]
        return int(number) if is_small and number == int(number) else number


def _is_deeper(value: Any, depth: int) -> bool:
    """Tests whether lists and objects lie in each other more than `depth` deep."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            item
            for found in level
            for item in (found.values() if isinstance(found, dict) else found if isinstance(found, list) else ())
        ]
    return bool(level)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


GRADER = Grader(
    name="json",
    version="2",
    description="1 if the answer is strict JSON, fulfils a schema and equals the reference, else 0",
    options=JsonOptions,
    grade=grade,
    work=work,
)
