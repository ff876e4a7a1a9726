"""SandboxFusion: `test` is a list of `{"input": {"stdin": …, FILE: …}, "output": {"stdout": …}}`.

Compared by words in lower case: integers exactly, other numbers within its relative 1e-5.
"""

from __future__ import annotations

from perilune.api.sandbox.v1.sandbox_pb2 import Comparison, File, JudgeRequest, TestCase
from perilune.errors import InvalidInputError
from perilune.grading.codetests.row import Row, field, request, rows_of, stdio

COMPARISON = Comparison(kind=Comparison.KIND_FLOATS, relative_tolerance=1e-5, ignore_case=True)


def read(row: Row, source: str, language: str) -> JudgeRequest:
    """Reads a row in the format of SandboxFusion: tests on stdio. InvalidInputError."""
    cases = [_case(test) for test in rows_of(field(row, "test", "tests"), "test")]
    if not cases:
        raise InvalidInputError("'test' must hold at least one test")
    return request(source, language, cases, COMPARISON)


def _case(test: Row) -> TestCase:
    given, wanted = field(test, "input"), field(test, "output")
    if not isinstance(given, dict) or not isinstance(wanted, dict) or set(wanted) != {"stdout"}:
        raise InvalidInputError("a test has an 'input' with 'stdin' and files, and an 'output' with 'stdout' alone")
    case = stdio(given.get("stdin", ""), wanted["stdout"])
    case.stdio.files.extend(
        File(path=path, content=str(content).encode()) for path, content in given.items() if path != "stdin"
    )
    return case
