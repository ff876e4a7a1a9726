"""What the formats share: reading a dataset's row with errors that say what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from perilune.api.sandbox.v1.sandbox_pb2 import (
    AssertTest,
    CallTest,
    Comparison,
    JudgeRequest,
    Program,
    StdioTest,
    TestCase,
)
from perilune.errors import InvalidInputError

Row = Mapping[str, Any]


def field(row: Row, *names: str) -> Any:
    """The first of these fields that the row has. InvalidInputError if it has none."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise InvalidInputError(f"the row has no {' or '.join(map(repr, names))}; it has {', '.join(map(repr, row))}")


def text(row: Row, *names: str) -> str:
    """A field that is text."""
    found = field(row, *names)
    if not isinstance(found, str):
        raise InvalidInputError(f"{names[0]!r} must be text, not {type(found).__name__}")
    return found


def parsed(value: Any, name: str) -> Any:
    """A field that is JSON, or text that holds some."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise InvalidInputError(f"{name!r} holds no JSON: {error}") from error


def rows_of(value: Any, name: str) -> list[Row]:
    """A field that is a list of objects, with at least one."""
    found = parsed(value, name)
    if not isinstance(found, list) or not found or not all(isinstance(item, dict) for item in found):
        raise InvalidInputError(f"{name!r} must be a list of objects, with at least one")
    return found


def stdio(stdin: Any, stdout: Any) -> TestCase:
    """A pair of texts; lists are their lines."""
    return TestCase(stdio=StdioTest(stdin=_lines(stdin), expected_stdout=_lines(stdout)))


def call(function: str, arguments: Sequence[Any], expected: Any) -> TestCase:
    """A function's arguments and what it is to return."""
    coded = CallTest(function=function, arguments_json=json.dumps(arguments), expected_json=json.dumps(expected))
    return TestCase(call=coded)


def assertion(source: str, entry_point: str = "") -> TestCase:
    return TestCase(assertion=AssertTest(source=source, entry_point=entry_point))


def request(
    source: str, language: str, cases: Sequence[TestCase], comparison: Comparison | None = None
) -> JudgeRequest:
    return JudgeRequest(program=Program(language=language, source=source), cases=cases, comparison=comparison)


def method_of(source: str, function: str) -> str:
    """Where a program keeps a function that was asked for: in a class Solution, as LeetCode has it, or bare."""
    return f"Solution.{function}" if "class Solution" in source else function


def _lines(value: Any) -> bytes:
    if isinstance(value, list):
        value = "\n".join(map(str, value))
    if not isinstance(value, str):
        raise InvalidInputError(f"an input or output must be text or a list of lines, not {type(value).__name__}")
    return value.encode("utf-8", "surrogatepass")
