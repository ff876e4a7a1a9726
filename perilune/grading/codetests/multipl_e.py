"""MultiPL-E: `{language, prompt, tests, stop_tokens}`. The tests begin by closing what the prompt opened.

A program may be the completion of the prompt, cut at the stop tokens here, or the whole of what the prompt begins.
"""

from __future__ import annotations

from perilune.api.sandbox.v1.sandbox_pb2 import JudgeRequest
from perilune.grading.codetests.languages import language_called
from perilune.grading.codetests.row import Row, assertion, parsed, request, text


def read(row: Row, source: str, language: str) -> JudgeRequest:
    """Reads a row of MultiPL-E: a prompt to complete up to a stop token, and tests. InvalidInputError."""
    prompt, tests = text(row, "prompt"), text(row, "tests")
    opening = next((line.strip() for line in reversed(prompt.splitlines()) if line.strip()), "")
    closes = tests.lstrip().startswith("}")
    if opening and opening in source:
        program = source
        if source.count("{") > source.count("}"):
            program += "\n}" if closes else ""
    else:
        stops = [source.find(stop) for stop in parsed(row.get("stop_tokens") or [], "stop_tokens")]
        program = prompt + source[: min((at for at in stops if at >= 0), default=None)] + ("\n}" if closes else "")
    if closes:  # the function that the prompt opened; it belongs to the program
        tests = tests.lstrip()[1:]
    named = language_called(str(row.get("language") or language))
    return request(program, named, [assertion(tests)])
