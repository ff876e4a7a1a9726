"""Says what the store takes and gives: rows of the database as values."""

from __future__ import annotations

from dataclasses import dataclass

from services.master.tables import SampleState


@dataclass(frozen=True)
class Group:
    """A group as the database has it, without its prompt."""

    id: str
    run_id: str
    iteration: int
    purpose: int
    mode: str
    position: int
    prompt_index: int
    num_samples: int
    num_dispatches: int = 0
    traceparent: str = ""
    batch: int | None = None  # the iteration in whose batch it is


@dataclass(frozen=True)
class Awaited:
    """A sample that is under way, or saved on its way."""

    group_id: str
    sample_index: int
    round: int  # how often it was continued
    ending: int | None  # of what was saved; none if nothing was


@dataclass(frozen=True)
class Partial:
    """Describes what an unfinished trajectory changes."""

    group_id: str
    sample_index: int
    round: int
    ending: int
    num_tokens: int
    payload: bytes


@dataclass(frozen=True)
class Graded:
    """Describes what decides the reward of a sample that has its score."""

    value: float
    correct: bool
    num_tokens: int  # that the policy wrote
    ending: int


@dataclass(frozen=True)
class Scored:
    """Describes what a scored trajectory changes."""

    group_id: str
    sample_index: int
    state: SampleState  # SCORED, EVALUATED, or DEAD if the grader could not say
    payload: bytes
    num_tokens: int
    round: int = 0
    ending: int = 0
    value: float | None = None
    correct: bool | None = None
    reason: str = ""
