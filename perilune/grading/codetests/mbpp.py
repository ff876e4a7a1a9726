"""MBPP: a list of asserts, `test_list`, with `test_setup_code` or `test_imports` before each. Every assert is a case.

KodCode and the like: a whole pytest file as `test`, which imports the program as `solution`.
"""

from __future__ import annotations

import ast
import builtins
import cmath
import collections
import copy
import functools
import itertools
import math
import operator
import statistics
from collections.abc import Iterator

from perilune.api.sandbox.v1.sandbox_pb2 import JudgeRequest, PytestTest, TestCase
from perilune.errors import InvalidInputError
from perilune.grading.codetests.row import Row, assertion, field, module_of, names_defined, parsed, request, text

# What asserts call beside the function that they are about, imported by them or not.
_HELPERS = {
    *("allclose", "array", "array_equal", "approx"),
    *(
        name
        for module in (math, cmath, collections, copy, functools, itertools, operator, statistics)
        for name in dir(module)
    ),
}


def read(row: Row, source: str, language: str) -> JudgeRequest:
    """Reads a row of MBPP: a list of asserts, or a pytest file. InvalidInputError."""
    if row.get("test_list") is None and isinstance(row.get("test"), str):
        return request(source, language, [TestCase(pytest=PytestTest(source=text(row, "test"), module="solution"))])
    asserts = parsed(field(row, "test_list"), "test_list")
    if not isinstance(asserts, list) or not asserts or not all(isinstance(test, str) for test in asserts):
        raise InvalidInputError("'test_list' must be a list of asserts, with at least one")
    setup = [*(row.get("test_imports") or []), row.get("test_setup_code") or ""]
    before = "".join(f"{line}\n" for line in setup if line)
    name = _entry_point([_tree(test) for test in asserts], before, row.get("code") or "")
    return request(source, language, [assertion(before + test, name) for test in asserts])


def _entry_point(asserts: list[ast.Module], before: str, code: str) -> str:
    """The function that the asserts are about: the one of the reference that they call, else the first they call that
    is neither built in, nor a known helper, nor their own."""
    own = {name for tree in (ast.Module(list(module_of(before)), []), *asserts) for name in _bound(tree)}
    called = [name for tree in asserts for name in _called(tree)]
    defined = names_defined(module_of(code))
    theirs = [name for name in called if name not in own and not hasattr(builtins, name)]
    choices = [
        *(name for name in called if name in defined),
        *(name for name in theirs if name not in _HELPERS),
        *theirs,
    ]
    return next(iter(choices), "")


def _tree(test: str) -> ast.Module:
    try:
        return ast.parse(test)
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
        raise InvalidInputError(f"{test[:200]!r} is no Python: {error}") from error


def _called(tree: ast.AST) -> Iterator[str]:
    nodes = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return (node.id for node in nodes if isinstance(node, ast.Name))


def _bound(tree: ast.AST) -> Iterator[str]:
    """The names that a test gives a value itself: imports, definitions, variables, arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
