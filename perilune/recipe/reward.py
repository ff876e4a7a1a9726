"""`[reward]`: graders, their shares, and what shapes a reward."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat

from perilune.table import NonNegativeInt, Options, Table


class GraderTable(Table):
    """One grader and its share of the reward."""

    name: str
    weight: float = 1.0
    options: Options = {}
    # A grader of one's own (perilune.grading.plugin): HOST:PORT where it answers, or FILE.py:FUNCTION, which
    # `perilune train` serves. Other reward services must have it under its name (PERILUNE_PLUGINS).
    plugin: str | None = None


class LengthRewardTable(Table):
    """The length reward (k1.5 §2.3.3): shorter correct answers of a group earn more, with a warm-up without it."""

    weight: NonNegativeFloat = 0.0
    warmup_iterations: NonNegativeInt = 0


class RewardTable(Table):
    """`[reward]`: graders, and what is added to or taken off their score."""

    graders: Annotated[list[GraderTable], Field(min_length=1)]
    length: LengthRewardTable = LengthRewardTable()
    repetition_penalty: NonNegativeFloat = 0.0  # off the reward of a response that was ended for repeating itself


def option_text(value: str | float | bool) -> str:
    """An option as it travels to its grader.

    >>> option_text(True), option_text(0.5), option_text("x")
    ('true', '0.5', 'x')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)
