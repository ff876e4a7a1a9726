"""The sandbox's own: `cases` and `comparison` as `perilune.api.sandbox.v1.JudgeRequest` has them in JSON.

A checker program stands in `comparison`, with its `kind` KIND_CHECKER.
"""

from __future__ import annotations

from google.protobuf.json_format import ParseDict, ParseError

from perilune.api.sandbox.v1.sandbox_pb2 import JudgeRequest
from perilune.errors import InvalidInputError
from perilune.grading.codetests.row import Row


def read(row: Row, source: str, language: str) -> JudgeRequest:
    """Reads a row that is a JudgeRequest as JSON. InvalidInputError."""
    try:
        found = ParseDict(dict(row), JudgeRequest())
    except ParseError as error:
        raise InvalidInputError(f"the row is no JudgeRequest: {error}") from error
    if not found.cases:
        raise InvalidInputError("the row has no 'cases'")
    found.program.source = source
    found.program.language = found.program.language or language
    return found
