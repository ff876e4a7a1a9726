"""The response is neither too short nor too long."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from services.reward.answer_extraction import without_thinking
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict

# Scripts that put no spaces between words count by the character.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+(?:['’-]\w+)*"
)


class LengthOptions(GraderOptions):
    """Options of the grader `length`."""

    unit: Literal["words", "chars", "lines"] = Field("words", description="what is counted")
    at_least: int = Field(0, ge=0, description="the fewest that are right")
    at_most: int = Field(0, ge=0, description="the most that are right; 0: no limit")
    soft: int = Field(0, ge=0, description="fall linearly to 0 over so many more; 0: at once")
    thinking: bool = Field(False, description="count the thinking too")

    @model_validator(mode="after")
    def _fit(self) -> LengthOptions:
        if self.at_most and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is more than at_most {self.at_most}")
        return self


def grade(sample: GradingSample, options: LengthOptions) -> Verdict:
    """The verdict on a sample."""
    text = sample.response if options.thinking else without_thinking(sample.response)
    length = count(text, options.unit)
    evidence = {"length": f"{length} {options.unit}"}
    if length < max(options.at_least, 1):
        return Verdict(0.0, evidence)
    excess = max(0, length - options.at_most) if options.at_most else 0
    return Verdict(max(0.0, 1 - excess / options.soft) if excess and options.soft else float(not excess), evidence)


def count(text: str, unit: str = "words") -> int:
    """Returns how many words, characters (white space apart) or lines that are not empty."""
    if unit == "words":
        return sum(1 for _ in _WORD.finditer(text))
    if unit == "chars":
        return sum(map(len, text.split()))
    return sum(1 for line in text.splitlines() if line.strip())


GRADER = Grader(
    name="length",
    version="1",
    description="1 if the response has the asked-for length, else 0, or less the longer it is",
    options=LengthOptions,
    grade=grade,
)
