"""The answer is one number, compared exactly."""

from __future__ import annotations

from fractions import Fraction

from pydantic import Field

from perilune.errors import InvalidInputError
from services.reward.answer_extraction import after_marker, boxed, without_thinking
from services.reward.equality.numbers import Number, agree, find_numbers, read_number
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict


class NumericOptions(GraderOptions):
    """Options of the grader `numeric`."""

    marker: str = Field("", description="the answer follows the last one; empty: in the last box, else the last number")
    tolerance: float = Field(0.0, ge=0, allow_inf_nan=False, description="largest absolute difference that is right")


def grade(sample: GradingSample, options: NumericOptions) -> Verdict:
    """The verdict on a sample."""
    reference = read_number(sample.reference)
    if reference is None:
        raise InvalidInputError(f"the reference {sample.reference!r:.80} is no number; another grader may read it")
    answers = _committed_numbers(without_thinking(sample.response), options.marker)
    if len(answers) != 1:
        return Verdict(0.0, {"answer": "", "why": "no number" if not answers else "several numbers"})
    (answer,) = answers
    difference = abs(answer.value - reference.value)
    correct = agree(reference, answer) or difference <= Fraction(str(options.tolerance))
    return Verdict.of(correct, answer=answer.text, reference=sample.reference)


def _committed_numbers(text: str, marker: str) -> list[Number]:
    committed = after_marker(text, marker) if marker else boxed(text)
    if committed is not None:
        number = read_number(committed)
        return [number] if number else find_numbers(committed)
    return [] if marker else find_numbers(text)[-1:]


GRADER = Grader(
    name="numeric",
    version="2",
    description="1 if the answer is the number of the reference, else 0; exact unless a tolerance is given",
    options=NumericOptions,
    grade=grade,
)
