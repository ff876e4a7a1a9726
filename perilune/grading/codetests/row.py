"""Shared by the formats: reading a dataset's row with errors that say what is wrong with it."""

from __future__ import annotations

import ast
import json
import re
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
from perilune.grading.codetests.languages import language_called

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
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name!r} holds no JSON: {error}") from error


def object_in(value: Any, name: str) -> Row:
    """A field that is an object, or text that holds one; an empty one where there is none."""
    found = parsed(value, name) if value else None
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise InvalidInputError(f"{name!r} must be an object, not {type(found).__name__}")
    return found


def rows_of(value: Any, name: str) -> list[Row]:
    """A field that is a list of objects; none where the field is empty."""
    found = parsed(value, name) if value else None
    if not isinstance(found or [], list) or not all(isinstance(item, dict) for item in found or []):
        raise InvalidInputError(f"{name!r} must be a list of objects")
    return found or []


def stdio(stdin: Any, stdout: Any) -> TestCase:
    """A pair of texts; lists are their lines."""
    return TestCase(stdio=StdioTest(stdin=_lines(stdin), expected_stdout=_lines(stdout)))


def call(function: str, arguments: Sequence[Any], expected: Any, *also: Any) -> TestCase:
    """A function's arguments and what it is to return; `also` are values that are right too."""
    return call_text(function, json.dumps(arguments), json.dumps(expected), *map(json.dumps, also))


def call_text(function: str, arguments: str, expected: str, *also: str) -> TestCase:
    """The same, of values that are JSON text."""
    coded = CallTest(function=function, arguments_json=arguments, expected_json=expected, also_expected_json=also)
    return TestCase(call=coded)


def assertion(source: str, entry_point: str = "") -> TestCase:
    """Makes a test case of statements that assert, about the function named."""
    return TestCase(assertion=AssertTest(source=source, entry_point=entry_point))


def request(
    source: str, language: str, cases: Sequence[TestCase], comparison: Comparison | None = None
) -> JudgeRequest:
    """Makes a request of a program and its cases."""
    return JudgeRequest(program=Program(language=language, source=source), cases=cases, comparison=comparison)


def method_of(source: str, function: str, language: str = "python") -> str:
    """The path of the function in a program: in a class Solution, as LeetCode has it, or bare."""
    if language_called(language) != "python":
        return f"Solution.{function}" if _SOLUTION.search(source) else function
    names, methods = _defined(source)
    is_method = function in methods or ("Solution" in names and function not in names)
    return f"Solution.{function}" if is_method else function


_SOLUTION = re.compile(r"^[ \t]*(?:export[ \t]+)?class[ \t]+Solution(?!\w)", re.MULTILINE)


def _defined(source: str) -> tuple[set[str], set[str]]:
    """The names that a Python program defines at its top level, and those in its class Solution."""
    body = module_of(source)
    classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == "Solution"]
    return names_defined(body), {name for found in classes for name in names_defined(found.body)}


def names_defined(body: Sequence[ast.stmt]) -> set[str]:
    """Collects the names that the statements define at their top level."""
    named = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return named | {target.id for target in targets if isinstance(target, ast.Name)}


def module_of(source: str) -> Sequence[ast.stmt]:
    """The statements of a Python program; none where it is no Python."""
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def put_before(before: str, source: str) -> str:
    """A Python program with something put before it: behind what must come first, which is its docstring and what it
    imports from `__future__`."""
    source = source.removeprefix("\ufeff")
    if "__future__" not in source:
        return before + source
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    futures = [node for node in module_of(source) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    if not futures:
        return before + source
    row, column = futures[-1].end_lineno or 0, futures[-1].end_col_offset or 0
    line = lines[row - 1].encode()
    first = [*lines[: row - 1], line[:column].decode()]
    rest = [re.sub(r"^[ \t]*;[ \t]*", "", line[column:].decode()), *lines[row:]]
    return "\n".join([*first, before + "\n".join(rest)])


def _lines(value: Any) -> bytes:
    if isinstance(value, list):
        value = "\n".join(map(str, value))
    if not isinstance(value, str):
        raise InvalidInputError(f"an input or output must be text or a list of lines, not {type(value).__name__}")
    return value.encode("utf-8", "surrogatepass")
