"""`[reward]`: graders, their shares, and what shapes a reward."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from perilune.table import NonNegativeInt, Options, PositiveInt, Table


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


class OverlongTable(Table):
    """The price of responses near the length limit (DAPO, arXiv:2503.14476 §3.4): none up to `max_tokens` -
    `buffer_tokens`, then in proportion, all of `penalty` from `max_tokens` on."""

    max_tokens: PositiveInt  # at most rollout.max_tokens, or nothing ever pays in full
    buffer_tokens: PositiveInt
    penalty: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _leaves_room(self) -> OverlongTable:
        if self.buffer_tokens > self.max_tokens:
            raise ValueError(f"buffer_tokens {self.buffer_tokens} is more than max_tokens {self.max_tokens}")
        return self


class ToggleTable(Table):
    """Toggle (Kimi K2.5 §4.4.1): phases by turns, the first of which withholds rewards of responses over their prompt's
    budget (perilune/objectives/toggle.py)."""

    phase_iterations: PositiveInt  # m: of each phase
    min_mean_score: float = 0.5  # λ: a group that scores less is held to no budget
    # ρ: of the lengths of a prompt's right responses, in the first batch that has any; its budget ever after.
    percentile: Annotated[float, Field(gt=0, le=100)] = 50.0


class RewardTable(Table):
    """`[reward]`: graders, and what is added to or taken off their score."""

    graders: Annotated[list[GraderTable], Field(min_length=1)]
    length: LengthRewardTable = LengthRewardTable()
    overlong: OverlongTable | None = None
    toggle: ToggleTable | None = None
    repetition_penalty: NonNegativeFloat = 0.0  # off the reward of a response that was ended for repeating itself


def option_text(value: str | float | bool) -> str:
    """An option as it travels to its grader.

    >>> option_text(True), option_text(0.5), option_text("x")
    ('true', '0.5', 'x')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)
