"""The response has the asked-for shape: thinking before the answer, each part once and not empty."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict
from services.reward.graders.regex import compile_pattern
from services.reward.graders.repetition import repeated_share

MOST_REPEATED = 0.5  # share of a part's pairs of words that may have occurred in it before


class FormatOptions(GraderOptions):
    """Options of the grader `format`."""

    tags: str = Field("", description="tags, each to occur once, in this order and not empty, e.g. `think,answer`")
    marker: str = Field("", description="text to occur once, after the tags, with an answer behind it")
    pattern: str = Field("", description="a regular expression that the whole response must match")
    min_chars: int = Field(10, ge=1, description="fewest letters and digits of each part before the last")

    @field_validator("tags")
    @classmethod
    def _are_names(cls, tags: str) -> str:
        if not re.fullmatch(r"(?:\w+(?:\s*,\s*\w+)*)?", tags):
            raise ValueError("give names without brackets, separated by commas")
        return tags

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        compile_pattern(pattern)
        return pattern


def grade(sample: GradingSample, options: FormatOptions) -> Verdict | None:
    """The verdict, or None where only the work of another process can tell."""
    why = _misshapen(sample.response, options)
    if why or not options.pattern:
        return Verdict.of(not why, why=why)
    return None  # a regular expression can take exponential time


def work(sample: GradingSample, options: FormatOptions) -> Verdict:
    """The verdict, in a process of its own that may be killed."""
    matches = re.fullmatch(options.pattern, sample.response.strip(), re.DOTALL) is not None
    return Verdict.of(matches, why="" if matches else "the pattern does not match")


def _misshapen(response: str, options: FormatOptions) -> str:
    """Returns what is wrong with the shape; empty if nothing is."""
    if not response.strip():
        return "the response is empty"
    rest = response
    names = [name.strip() for name in options.tags.split(",") if name.strip()]
    parts: list[str] = []
    for name in names:
        opening, closing = f"<{name}>", f"</{name}>"
        if response.count(opening) != 1 or response.count(closing) != 1:
            return f"{opening} and {closing} do not occur exactly once"
        before, found, rest = rest.partition(opening)
        content, closed, rest = rest.partition(closing)
        if not (found and closed):
            return f"{opening}...{closing} is out of order"
        if before.strip():
            return f"there is text outside the tags, before {opening}"
        parts.append(content)
    if options.marker:
        if response.count(options.marker) != 1:
            return f"{options.marker!r} does not occur exactly once"
        before, found, rest = rest.partition(options.marker)
        if not found:
            return f"{options.marker!r} comes before the end of the tags"
        parts += [before] * (not names or bool(before.strip())) + [rest]
    elif names and rest.strip():
        return "there is text after the last tag"
    if parts and not parts[-1].strip():
        return "the answer is empty"
    for part in parts[:-1]:
        if sum(map(str.isalnum, part)) < options.min_chars:
            return f"a part before the answer has fewer than {options.min_chars} letters and digits"
        if repeated_share(part, words=2) > MOST_REPEATED:
            return "a part before the answer says the same over and over"
    return ""


GRADER = Grader(
    name="format",
    version="2",
    description="1 if the response has the asked-for tags, marker and pattern, else 0",
    options=FormatOptions,
    grade=grade,
    work=work,
)
