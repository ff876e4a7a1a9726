"""HumanEval and EvalPlus: `{prompt, test, entry_point}`, where `test` defines `check(candidate)`.

A program may be the completion of the prompt alone, or define the function itself; what the prompt defines besides is
there either way.
"""

from __future__ import annotations

import re

from perilune.api.sandbox.v1.sandbox_pb2 import JudgeRequest
from perilune.grading.codetests.row import Row, assertion, put_before, request, text


def read(row: Row, source: str, language: str) -> JudgeRequest:
    """Reads a row of HumanEval: a prompt to complete, and a test that calls `check`. InvalidInputError."""
    prompt, function = text(row, "prompt"), text(row, "entry_point")
    source = source.removeprefix("\ufeff")
    defines = re.search(rf"^(?:async\s+)?def\s+{re.escape(function)}\s*\(", source, re.MULTILINE)
    # A prompt ends with a docstring, which is a whole function: a second definition replaces it.
    program = put_before(f"{prompt}\n    pass\n\n" if defines else prompt, source)
    return request(program, language, [assertion(text(row, "test"), function)])
