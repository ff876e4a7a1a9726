"""HumanEval's problems in other languages, as `perilune.evaluation.translation` writes them.

A row is `{language, header, opening, prompt, closing, tests, entry_point}`. The prompt is the header (imports), the
opening of a class where the language wants one, and the function up to its body; the tests stand on their own.

A program may be the function's body alone, the function, or the whole of it with its class and imports.
"""

from __future__ import annotations

import re

from perilune.api.sandbox.v1.sandbox_pb2 import JudgeRequest
from perilune.grading.codetests.languages import language_called
from perilune.grading.codetests.row import Row, assertion, request, text

_CLASS = re.compile(r"\bclass\s+Problem\b")


def read(row: Row, source: str, language: str) -> JudgeRequest:
    """Reads a row of a translated problem. InvalidInputError."""
    named = language_called(str(row.get("language") or language))
    return request(_program(row, source.removeprefix("\ufeff")), named, [assertion(text(row, "tests"))])


def _program(row: Row, source: str) -> str:
    header, opening = str(row.get("header") or ""), str(row.get("opening") or "")
    closing, name = str(row.get("closing") or ""), text(row, "entry_point")
    if not re.search(rf"\b{re.escape(name)}\s*\(", source):
        return f"{text(row, 'prompt')}{source}\n{closing}"  # the body
    body = source.replace("<?php", "").removesuffix("?>") if "<?php" in header else source
    if opening and not _CLASS.search(body):
        body = f"{opening}{body}\n}}\n"  # the function, which the language wants in a class
    return f"{header}{body}\n"
