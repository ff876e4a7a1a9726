"""The answer means the same as the reference, whatever the notation (`services.reward.equality`).

Rules decide first. What they leave undecided goes to a judge, if the options have votes for one.
"""

from __future__ import annotations

from pydantic import Field, NonNegativeInt

from perilune.errors import InvalidInputError
from services.reward.answer_extraction import (
    MAX_PROSE,
    committed,
    is_prose,
    is_solution,
    is_statement,
    value_in_prose,
)
from services.reward.choices import chosen_letter
from services.reward.equality.expression import TooLargeError
from services.reward.equality.structure import Algebra, equal, has_noun, is_choice, is_text_answer
from services.reward.graders import judge
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict


class MathOptions(GraderOptions):
    """Options of the grader `math`."""

    marker: str = Field("", description="the answer follows the last one; empty: last box, `answer is`, or last line")
    judge: NonNegativeInt = Field(
        0, le=judge.MAX_VOTES, description="votes of the judge on what the rules leave undecided; 0: no judge is asked"
    )


def grade(sample: GradingSample, options: MathOptions) -> Verdict | None:
    """The verdict, or None where only the work of another process can tell."""
    return _grade(sample, options, None)


def work(sample: GradingSample, options: MathOptions) -> Verdict:
    """The verdict, in a process of its own that may be killed."""
    from services.reward.equality.symbolic import symbolic_equal  # sympy: only grader processes need it

    verdict = _grade(sample, options, symbolic_equal)
    assert verdict is not None
    return verdict


async def ask(sample: GradingSample, options: MathOptions) -> Verdict | None:
    """The judge's verdict, where the options ask for one."""
    if not options.judge:
        return None
    asked = judge.JudgeOptions(votes=options.judge, marker=options.marker)
    return judge.grade(sample, asked) or await judge.ask(sample, asked)


def _grade(sample: GradingSample, options: MathOptions, algebra: Algebra | None) -> Verdict | None:
    reference = committed(sample.reference) if is_solution(sample.reference) else sample.reference.strip()
    if not reference:
        raise InvalidInputError("the prompt has no reference answer")
    answer = committed(sample.response, options.marker)
    if not answer:
        return Verdict(0.0, {"answer": "", "why": "no answer"})
    values = _readings(answer, reference)
    evidence = {"answer": values[-1], "reference": reference}
    try:
        correct = any(equal(reference, value) for value in values[:-1]) or equal(reference, values[-1], algebra)
    except TooLargeError as error:
        return Verdict(None, evidence | {"why": f"too large to look at: {error}"})
    if correct is None and algebra is None:
        return None
    return Verdict.of(correct, **evidence)


def _readings(answer: str, reference: str) -> list[str]:
    """The answer as it stands, and without the sentence around it."""
    if len(answer) > MAX_PROSE:
        return [answer]
    if is_choice(reference):
        return [chosen_letter(answer) or answer]
    if not is_prose(answer) or is_statement(reference) or is_text_answer(reference):
        return [answer]
    return [answer, value_in_prose(answer, with_noun=has_noun(reference))]


GRADER = Grader(
    name="math",
    version="4",
    description="1 if the answer has the value of the reference in whatever notation, else 0",
    options=MathOptions,
    grade=grade,
    work=work,
    ask=ask,
)
