"""MBPP: a list of asserts, `test_list`, with `test_setup_code` or `test_imports` before each. Every assert is a case.

KodCode and the like: a whole pytest file as `test`, which imports the program as `solution`.
"""

from __future__ import annotations

import ast
import builtins
import re

from perilune.api.sandbox.v1.sandbox_pb2 import JudgeRequest, PytestTest, TestCase
from perilune.codetests.row import Row, assertion, field, parsed, request, text
from perilune.errors import InvalidInputError


def read(row: Row, source: str, language: str) -> JudgeRequest:
    if row.get("test_list") is None and isinstance(row.get("test"), str):
        return request(source, language, [TestCase(pytest=PytestTest(source=text(row, "test"), module="solution"))])
    asserts = parsed(field(row, "test_list"), "test_list")
    if not isinstance(asserts, list) or not asserts or not all(isinstance(test, str) for test in asserts):
        raise InvalidInputError("'test_list' must be a list of asserts, with at least one")
    setup = [*(row.get("test_imports") or []), row.get("test_setup_code") or ""]
    before = "".join(f"{line}\n" for line in setup if line)
    name = _entry_point(asserts, row.get("code") or "")
    return request(source, language, [assertion(before + test, name) for test in asserts])


def _entry_point(asserts: list[str], code: str) -> str:
    """The function that the asserts are about: the one of the reference that they call, else the first they call."""
    called: list[str] = []
    for test in asserts:
        try:
            nodes = list(ast.walk(ast.parse(test)))
        except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
            raise InvalidInputError(f"{test[:200]!r} is no Python: {error}") from error
        called += [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    defined = re.findall(r"^def\s+(\w+)", code, re.MULTILINE)
    own = [name for name in called if not hasattr(builtins, name)]
    return next((name for name in called if name in defined), next(iter(own), ""))
