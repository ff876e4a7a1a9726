"""The answer is JSON: of a schema, or equal to the reference."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import Field, field_validator

from perilune.errors import InvalidInputError
from services.reward.answers import without_thinking
from services.reward.graders.grader import Grader, GraderOptions, Sample, Verdict

MAX_CHARS = 200_000
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


class JsonOptions(GraderOptions):
    json_schema: str = Field("", description="a JSON Schema that the answer has to fulfil")
    compare: Literal["none", "equal", "contains"] = Field(
        "equal", description="with the reference, if there is one; `contains`: keys and items beyond it are fine"
    )
    unordered: bool = Field(False, description="the order of items in lists does not matter")

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, schema: str) -> str:
        if schema and not isinstance(parse(schema), dict):
            raise ValueError("a JSON Schema is an object")
        return schema


def parse(text: str) -> Any:
    """Strict JSON: no NaN, no key twice. ValueError says what is wrong."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"longer than {MAX_CHARS:,} characters")
    try:
        return json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def grade(sample: Sample, options: JsonOptions) -> Verdict | None:
    compares = bool(sample.reference.strip()) and options.compare != "none"
    if not compares and not options.json_schema:
        raise InvalidInputError("nothing to compare with: give a reference, or the option `json_schema`")
    text = _answer(sample.response)
    try:
        answer = parse(text)
    except ValueError as error:
        return Verdict(0.0, {"answer": text, "why": f"no JSON: {error}"})
    if compares:
        try:
            reference = parse(sample.reference)
        except ValueError as error:
            raise InvalidInputError(f"the reference is no JSON: {error}") from error
        if not _same(reference, answer, options.compare == "contains", options.unordered):
            return Verdict(0.0, {"answer": text, "why": "another value than the reference"})
    # A schema can hold regular expressions, which can take exponential time.
    return None if options.json_schema else Verdict(1.0, {"answer": text})


def work(sample: Sample, options: JsonOptions) -> Verdict:
    import jsonschema  # only grader processes need it

    text, schema = _answer(sample.response), parse(options.json_schema)
    try:
        jsonschema.Draft202012Validator(schema).validate(parse(text))
    except jsonschema.ValidationError as error:
        return Verdict(0.0, {"answer": text, "why": f"{error.json_path}: {error.message}"})
    except jsonschema.SchemaError as error:
        raise InvalidInputError(f"option 'json_schema': {error.message}") from error
    return Verdict(1.0, {"answer": text})


def _answer(response: str) -> str:
    """The last fenced block, else all of the text."""
    text = without_thinking(response)
    fenced = _FENCE.findall(text)
    return (fenced[-1] if fenced else text).strip()


def _same(reference: Any, answer: Any, contains: bool, unordered: bool) -> bool:
    if isinstance(reference, dict) and isinstance(answer, dict):
        keys = reference.keys() <= answer.keys() if contains else reference.keys() == answer.keys()
        return keys and all(_same(value, answer[key], contains, unordered) for key, value in reference.items())
    if isinstance(reference, list) and isinstance(answer, list):
        return _same_lists(reference, answer, contains, unordered)
    if isinstance(reference, bool) or isinstance(answer, bool):
        return reference is answer
    return (type(reference) is type(answer) and reference == answer) or _is_number(reference, answer)


def _same_lists(reference: list[Any], answer: list[Any], contains: bool, unordered: bool) -> bool:
    if len(answer) < len(reference) or (len(answer) > len(reference) and not contains):
        return False
    if not unordered and not contains:
        return all(_same(a, b, contains, unordered) for a, b in zip(reference, answer, strict=True))
    rest = list(answer)
    for wanted in reference:
        place = next((i for i, found in enumerate(rest) if _same(wanted, found, contains, unordered)), None)
        if place is None:
            return False
        del rest[place]
    return True


def _is_number(reference: Any, answer: Any) -> bool:
    return isinstance(reference, int | float) and isinstance(answer, int | float) and reference == answer


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


GRADER = Grader(
    name="json",
    version="1",
    description="1 if the answer is strict JSON, fulfils a schema and equals the reference, else 0",
    options=JsonOptions,
    grade=grade,
    work=work,
)
