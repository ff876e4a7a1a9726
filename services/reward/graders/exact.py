"""The answer is the reference, word for word."""

from __future__ import annotations

import re
from collections import Counter

from pydantic import Field

from services.reward.answer_extraction import after_marker, without_thinking
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict


class ExactOptions(GraderOptions):
    """Options of the grader `exact`."""

    marker: str = Field("", description="the answer is what follows the last one, to the end; empty: all of the text")
    unordered: bool = Field(False, description="compare as items between spaces or commas, in any order")
    case: bool = Field(False, description="whether upper and lower case differ")


def grade(sample: GradingSample, options: ExactOptions) -> Verdict:
    """The verdict on a sample."""
    text = without_thinking(sample.response)
    answer = after_marker(text, options.marker) if options.marker else text.strip()
    if not answer:
        return Verdict(0.0, {"answer": "", "why": f"nothing after {options.marker!r}" if options.marker else "empty"})
    return Verdict.of(_same(sample.reference, answer, options), answer=answer, reference=sample.reference)


def _same(reference: str, answer: str, options: ExactOptions) -> bool:
    if not options.case:
        reference, answer = reference.casefold(), answer.casefold()
    if options.unordered:
        return Counter(_items(reference)) == Counter(_items(answer))
    return reference.split() == answer.split()


def _items(text: str) -> list[str]:
    return re.findall(r"[^\s,]+", text)


GRADER = Grader(
    name="exact",
    version="1",
    description="1 if the answer is the reference word for word, else 0",
    options=ExactOptions,
    grade=grade,
)
