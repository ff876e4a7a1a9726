"""APPS and TACO: `{"inputs": […], "outputs": […], "fn_name"?}`, in the row itself or as its `input_output`.

Without `fn_name` they are stdin and stdout, compared by words: integers exactly, other numbers within the 1e-5 of
APPS's own script. With it an input is the list of arguments, or text with one JSON value a line. Outputs that are all
lists of one value hold that value, as APPS wraps them, or are what the function returns, as others leave them: both are
right, as they are for APPS's script.
"""

from __future__ import annotations

from typing import Any

from perilune.api.sandbox.v1.sandbox_pb2 import Comparison, JudgeRequest
from perilune.errors import InvalidInputError
from perilune.grading.codetests.row import Row, call, field, method_of, object_in, parsed, request, stdio

COMPARISON = Comparison(kind=Comparison.KIND_FLOATS, relative_tolerance=1e-5, absolute_tolerance=1e-8)


def read(row: Row, source: str, language: str) -> JudgeRequest:
    """Reads a row of APPS or TACO: inputs and outputs on stdio, or calls of a function. InvalidInputError."""
    tests = object_in(row["input_output"], "input_output") if "input_output" in row else row
    inputs, outputs = parsed(field(tests, "inputs"), "inputs"), parsed(field(tests, "outputs"), "outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not 0 < len(inputs) == len(outputs):
        raise InvalidInputError("'inputs' and 'outputs' must be lists of one length, with at least one case")
    function = tests.get("fn_name")
    if not function:
        return request(source, language, [stdio(i, o) for i, o in zip(inputs, outputs, strict=True)], COMPARISON)
    expected = [_value(output) for output in outputs]
    right = [[value] for value in expected]
    if all(isinstance(value, list) and len(value) == 1 for value in expected):
        right = [[value[0], value] for value in expected]
    name = method_of(source, function, language)
    return request(source, language, [call(name, _arguments(i), *r) for i, r in zip(inputs, right, strict=True)])


def _arguments(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [parsed(line, "inputs") for line in given.split("\n") if line.strip()]
    return given if isinstance(given, list) else [given]


def _value(output: Any) -> Any:
    return parsed(output, "outputs") if isinstance(output, str) else output
