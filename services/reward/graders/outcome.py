"""The environment says how the response went: a game won, a goal reached, a program that runs."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from perilune.errors import InvalidInputError
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict


class OutcomeOptions(GraderOptions):
    """Options of the grader `outcome`."""

    take: Literal["value", "correct"] = Field(
        "value", description="the outcome's value as it is, or 1 and 0 for whether it is correct"
    )


def grade(sample: GradingSample, options: OutcomeOptions) -> Verdict:
    """InvalidInputError: the environment gave no outcome, or failed at it; nothing is known of the response then."""
    outcome = sample.outcome
    if outcome is None:
        raise InvalidInputError("no environment gave this response an outcome; is `rollout.environment` one that does?")
    if outcome.error:
        raise InvalidInputError(f"the environment failed: {outcome.error}")
    if not math.isfinite(outcome.value) or not outcome.HasField("value"):
        raise InvalidInputError("the environment gave an outcome without a finite value")
    correct = outcome.correct if outcome.HasField("correct") else outcome.value >= 1
    value = float(correct) if options.take == "correct" else outcome.value
    return Verdict(value, {"correct": str(correct).lower(), "reason": outcome.reason})


GRADER = Grader(
    name="outcome",
    version="1",
    description="what the environment says of how the response went",
    options=OutcomeOptions,
    grade=grade,
)
