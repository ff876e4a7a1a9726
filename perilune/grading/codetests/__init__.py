"""Tests of code datasets, as they are: a row and a program become a request to the sandbox.

A new format is one file and one row of the table. Nothing of a row is evaluated or unpickled.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from perilune.api.sandbox.v1.sandbox_pb2 import JudgeRequest
from perilune.errors import InvalidInputError
from perilune.grading.codetests import (
    apps,
    humaneval,
    livecodebench,
    mbpp,
    multipl_e,
    native,
    sandboxfusion,
    translated,
)
from perilune.grading.codetests.row import Row

FORMATS: Mapping[str, Callable[[Row, str, str], JudgeRequest]] = {
    "apps": apps.read,
    "taco": apps.read,
    "livecodebench": livecodebench.read,
    "humaneval": humaneval.read,
    "evalplus": humaneval.read,
    "mbpp": mbpp.read,
    "multipl-e": multipl_e.read,
    "sandboxfusion": sandboxfusion.read,
    "native": native.read,
    "translated": translated.read,
}


def language_of(format: str, row: Row, language: str) -> str:
    """The program's language: what a row of a format of many languages says, else the one given."""
    named = _SAYS_LANGUAGE[format](row) if format in _SAYS_LANGUAGE and isinstance(row, Mapping) else None
    return named if isinstance(named, str) and named else language


def _native_language(row: Row) -> object:
    program = row.get("program")
    return program.get("language") if isinstance(program, Mapping) else None


_SAYS_LANGUAGE: Mapping[str, Callable[[Row], object]] = {
    "multipl-e": lambda row: row.get("language"),
    "translated": lambda row: row.get("language"),
    "native": _native_language,
}


def judge_request(format: str, row: Row, source: str, language: str = "python") -> JudgeRequest:
    """The request that judges a program by a dataset's row.

    Args:
        format: a name of FORMATS.
        row: as the dataset has it.
        source: the program, or where the format has a prompt, its completion.
        language: the program's, where the row does not name it.

    Raises:
        InvalidInputError: no such format, or the row is not of it; the message says what is wrong.
    """
    if format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(FORMATS)}"
        raise InvalidInputError(f"there is no format {format!r} of code tests; {hint}")
    if not isinstance(row, Mapping):
        raise InvalidInputError(f"a row of code tests is an object, not {type(row).__name__}")
    return FORMATS[format](row, source, language)
