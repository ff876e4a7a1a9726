"""The answer matches a regular expression."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from perilune.errors import InvalidInputError
from services.reward.answer_extraction import after_marker, without_thinking
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict

MAX_PATTERN_CHARS = 10_000


class RegexOptions(GraderOptions):
    """Options of the grader `regex`."""

    pattern: str = Field("", description="the regular expression; empty: the reference is it")
    where: Literal["anywhere", "whole"] = Field("whole", description="`whole`: all of the answer; `anywhere`: a part")
    marker: str = Field("", description="the answer is what follows the last one; empty: all but the thinking")
    case: bool = Field(True, description="whether upper and lower case differ")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        compile_pattern(pattern)
        return pattern


def compile_pattern(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """The compiled expression. ValueError says what is wrong with it."""
    if len(pattern) > MAX_PATTERN_CHARS:  # `re` keeps the last 512, compiled
        raise ValueError(f"no regular expression: {len(pattern):,} characters, and {MAX_PATTERN_CHARS:,} are allowed")
    try:
        return re.compile(pattern, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"no regular expression: {error}") from error


def grade(sample: GradingSample, options: RegexOptions) -> Verdict | None:
    """Nothing but the reference is looked at here: a regular expression can take exponential time."""
    if not (options.pattern or sample.reference):
        raise InvalidInputError("there is no regular expression: give the option `pattern`, or a reference")
    return None


def work(sample: GradingSample, options: RegexOptions) -> Verdict:
    """The verdict, in a process of its own that may be killed."""
    try:
        flags = re.DOTALL if options.case else re.DOTALL | re.IGNORECASE
        pattern = compile_pattern(options.pattern or sample.reference, flags)
    except ValueError as error:
        raise InvalidInputError(f"the reference is {error}") from error
    text = without_thinking(sample.response).strip()
    answer = after_marker(text, options.marker) if options.marker else text
    if not answer:
        return Verdict(0.0, {"answer": "", "why": "no answer"})
    match = pattern.fullmatch(answer) if options.where == "whole" else pattern.search(answer)
    return Verdict.of(match is not None, answer=match[0] if match else answer, reference=pattern.pattern)


GRADER = Grader(
    name="regex",
    version="1",
    description="1 if the answer matches a regular expression, else 0",
    options=RegexOptions,
    grade=grade,
    work=work,
)
