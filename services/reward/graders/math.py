"""The answer means the same as the reference, whatever the notation (`services.reward.equality`)."""

from __future__ import annotations

from pydantic import Field

from perilune.errors import InvalidInputError
from services.reward.answers import committed
from services.reward.equality.structure import equal
from services.reward.graders.grader import Grader, GraderOptions, Sample, Verdict


class MathOptions(GraderOptions):
    marker: str = Field("", description="the answer follows the last one; empty: last box, `answer is`, or last line")


def grade(sample: Sample, options: MathOptions) -> Verdict | None:
    if not sample.reference.strip():
        raise InvalidInputError("the prompt has no reference answer")
    answer = committed(sample.response, options.marker)
    if not answer:
        return Verdict(0.0, {"answer": "", "why": "no answer"})
    correct = equal(_unboxed(sample.reference), answer)
    return None if correct is None else Verdict.of(correct, answer=answer, reference=sample.reference)


def work(sample: Sample, options: MathOptions) -> Verdict:
    from services.reward.equality.symbolic import symbolic_equal  # sympy: only grader processes need it

    answer = committed(sample.response, options.marker) or ""
    correct = equal(_unboxed(sample.reference), answer, symbolic_equal)
    return Verdict.of(correct, answer=answer, reference=sample.reference)


def _unboxed(reference: str) -> str:
    return committed(reference) if "\\boxed" in reference else reference  # type: ignore[return-value]


GRADER = Grader(
    name="math",
    version="1",
    description="1 if the answer has the value of the reference in whatever notation, else 0",
    options=MathOptions,
    grade=grade,
    work=work,
)
