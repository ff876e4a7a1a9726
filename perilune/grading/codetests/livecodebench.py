"""LiveCodeBench: `public_test_cases` and `private_test_cases`, each a list of `{input, output, testtype}`, or such a
list as `tests`; `metadata` names the function of functional tests.

Private tests come as a pickle of text, compressed. A pickle is a program and is not run here: its one text is read out
of it, and anything else in it is refused. Output is compared by words, decimals by value.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from typing import Any

from perilune.api.sandbox.v1.sandbox_pb2 import Comparison, JudgeRequest, TestCase
from perilune.errors import InvalidInputError
from perilune.grading.codetests.languages import language_called
from perilune.grading.codetests.row import (
    Row,
    call,
    method_of,
    object_in,
    parsed,
    put_before,
    request,
    rows_of,
    stdio,
    text,
)

# Decimals are equal by value, so only what their notation rounds off is forgiven.
COMPARISON = Comparison(kind=Comparison.KIND_FLOATS, relative_tolerance=1e-15)
MAX_TESTS_BYTES = 1 << 30

# What the benchmark puts in front of every Python program.
PRELUDE = """\
from string import *
from re import *
from datetime import *
from collections import *
from heapq import *
from bisect import *
from copy import *
from math import *
from random import *
from statistics import *
from itertools import *
from functools import *
from operator import *
from io import *
from sys import *
from json import *
from builtins import *
from typing import *
import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools
import operator, io, sys, json
sys.setrecursionlimit(50000)
"""
# What a pickle of one text consists of.
_HARMLESS = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"}
_TEXT = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}


def read(row: Row, source: str, language: str) -> JudgeRequest:
    """Reads a row of LiveCodeBench, public and private tests together. InvalidInputError."""
    names = [name for name in ("tests", "public_test_cases", "private_test_cases") if row.get(name)]
    tests = [test for name in names for test in rows_of(_unpacked(row[name], name), name)]
    if not tests:
        raise InvalidInputError("the row has none of 'tests', 'public_test_cases' and 'private_test_cases'")
    function = object_in(row.get("metadata"), "metadata").get("func_name", "")
    program = put_before(PRELUDE, source) if language_called(language) == "python" else source
    cases = [_case(test, source, language, function) for test in tests]
    return request(program, language, cases, _comparison(tests))


def _case(test: Row, source: str, language: str, function: str) -> TestCase:
    if test.get("testtype", "stdin") == "stdin":
        return stdio(text(test, "input"), text(test, "output"))
    name = object_in(test.get("metadata"), "metadata").get("func_name", function)
    if not name:
        raise InvalidInputError("a functional test needs 'func_name' in 'metadata'")
    arguments = [parsed(line, "input") for line in text(test, "input").split("\n") if line.strip()]
    return call(method_of(source, name, language), arguments, parsed(text(test, "output"), "output"))


def _comparison(tests: list[Row]) -> Comparison | None:
    return COMPARISON if tests[0].get("testtype", "stdin") == "stdin" else None


def _unpacked(value: Any, name: str) -> Any:
    """The tests as JSON, also where they are packed."""
    if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{") or value.strip() in ("", "null"):
        return value
    try:
        unzip = zlib.decompressobj()
        pickled = unzip.decompress(base64.b64decode(value, validate=True), MAX_TESTS_BYTES)
        return json.loads(_text_of(pickled, name))
    except (binascii.Error, zlib.error, ValueError) as error:
        raise InvalidInputError(f"{name!r} is neither JSON nor LiveCodeBench's packed text: {error}") from error


def _text_of(pickled: bytes, name: str) -> str:
    """The one text in a pickle, without running it."""
    found = None
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in _TEXT and found is None:
            found = argument
        elif operation.name not in _HARMLESS:
            raise InvalidInputError(f"{name!r} holds a pickle of more than one text ({operation.name}); it is not run")
    if not isinstance(found, str):
        raise InvalidInputError(f"{name!r} holds a pickle without a text")
    return found
