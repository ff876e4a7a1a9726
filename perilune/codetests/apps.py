"""APPS and TACO: `{"inputs": […], "outputs": […], "fn_name"?}`, in the row itself or as its `input_output`.

Without `fn_name` they are stdin and stdout, compared by words: integers exactly, other numbers within the 1e-5 of
APPS's own script. With it an input is the list of arguments, or text with one JSON value a line; outputs that are all
lists of one value hold that value, which is how APPS wraps them.
"""

from __future__ import annotations

from typing import Any

from perilune.api.sandbox.v1.sandbox_pb2 import Comparison, JudgeRequest
from perilune.codetests.row import Row, call, field, method_of, parsed, request, stdio
from perilune.errors import InvalidInputError

COMPARISON = Comparison(kind=Comparison.KIND_FLOATS, relative_tolerance=1e-5, absolute_tolerance=1e-8)


def read(row: Row, source: str, language: str) -> JudgeRequest:
    tests = parsed(row.get("input_output", row), "input_output")
    inputs, outputs = parsed(field(tests, "inputs"), "inputs"), parsed(field(tests, "outputs"), "outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not 0 < len(inputs) == len(outputs):
        raise InvalidInputError("'inputs' and 'outputs' must be lists of one length, with at least one case")
    function = tests.get("fn_name")
    if not function:
        return request(source, language, [stdio(i, o) for i, o in zip(inputs, outputs, strict=True)], COMPARISON)
    expected = [_value(output) for output in outputs]
    if all(isinstance(value, list) and len(value) == 1 for value in expected):
        expected = [value[0] for value in expected]
    name = method_of(source, function)
    return request(source, language, [call(name, _arguments(i), e) for i, e in zip(inputs, expected, strict=True)])


def _arguments(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [parsed(line, "inputs") for line in given.split("\n") if line.strip()]
    return given if isinstance(given, list) else [given]


def _value(output: Any) -> Any:
    return parsed(output, "outputs") if isinstance(output, str) else output
