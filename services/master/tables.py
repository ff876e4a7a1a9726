"""The database: what was asked for, what was dispatched, what came of every sample.

Unique keys are what makes an effect happen once, however often its message is delivered.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from perilune.policies import DEFAULT_POLICY


class Base(DeclarativeBase):
    """Tables of this database; values are BigInteger and JSON where SQLAlchemy has to choose."""

    # Named constraints, so that a migration can speak of them on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, int: BigInteger}  # noqa: RUF012


class SampleState(StrEnum):
    """Describes where a sample is in the ledger. The first three are in flight, the others are final."""

    DISPATCHED = "dispatched"
    PARTIAL = "partial"  # unfinished and saved; to be continued
    SCORED = "scored"
    TRAINED = "trained"
    FILTERED = "filtered"
    STALE = "stale"
    DEAD = "dead"
    EVALUATED = "evaluated"


OPEN = (SampleState.DISPATCHED, SampleState.PARTIAL)
"""States of samples that may still come to something."""


class RunRow(Base):
    """A run: its recipe, its state and its newest lease."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[int]  # a RunState of the contract
    reason: Mapped[str] = mapped_column(default="")
    recipe: Mapped[str]  # JSON, as checked
    submitted_ns: Mapped[int]
    active_seconds: Mapped[float] = mapped_column(default=0.0)
    model_path: Mapped[str] = mapped_column(default="")
    lease_epoch: Mapped[int] = mapped_column(default=0)  # of the newest lease; only grows
    prompts: Mapped[bytes | None] = mapped_column(LargeBinary)  # the PromptSummary at submission
    secret: Mapped[bytes | None] = mapped_column(LargeBinary)  # with which its tasks are sealed


class VersionRow(Base):
    """A committed version, and what it was made from."""

    __tablename__ = "versions"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    policy: Mapped[str] = mapped_column(primary_key=True, server_default=DEFAULT_POLICY)  # its name
    number: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str]
    num_samples: Mapped[int]
    num_tokens: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    committed_ns: Mapped[int]
    model_path: Mapped[str]
    closed: Mapped[bool] = mapped_column(default=False)  # the batch that is trained on at this version is settled


class GroupRow(Base):
    """One prompt's k samples; written before it is published."""

    __tablename__ = "groups"

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    iteration: Mapped[int]
    purpose: Mapped[int]  # a Purpose of the contract
    mode: Mapped[str]  # of an evaluation: greedy or sampled
    position: Mapped[int]  # in its iteration
    prompt_index: Mapped[int]  # in its prompt set
    num_samples: Mapped[int]
    num_dispatches: Mapped[int] = mapped_column(default=0)
    traceparent: Mapped[str] = mapped_column(default="")
    batch: Mapped[int | None]  # the iteration in whose batch it is; none as long as a sample of it is open

    __table_args__ = (Index(None, "run_id", "iteration"), Index(None, "run_id", "batch"))


class SampleRow(Base):
    """One line of the ledger."""

    __tablename__ = "samples"

    group_id: Mapped[str] = mapped_column(ForeignKey("groups.id"), primary_key=True)
    sample_index: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    iteration: Mapped[int]  # that dispatched it
    purpose: Mapped[int]
    state: Mapped[str]
    round: Mapped[int] = mapped_column(default=0)  # how often it was continued
    ending: Mapped[int | None]  # an Ending of the contract: of what there is of it
    partial: Mapped[bytes | None] = mapped_column(LargeBinary)  # the Trajectory so far, while it is unfinished
    reason: Mapped[str] = mapped_column(default="")  # why it is dead
    value: Mapped[float | None]  # the score
    correct: Mapped[bool | None]  # what the first grader said
    num_tokens: Mapped[int | None]
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)  # the ScoredTrajectory

    __table_args__ = (
        Index(None, "run_id", "iteration", "state"),
        Index(None, "run_id", "state"),
        Index(None, "run_id", "purpose", "state"),
    )


class EvaluationRow(Base):
    """Describes how many held-out problems a version solved in one mode."""

    __tablename__ = "evaluations"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    mode: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    num_problems: Mapped[int]
    num_correct: Mapped[int]
    mean_tokens: Mapped[float]


class StageStepRow(Base):
    """A step of a stage before or after reinforcement learning: the newest, and some on the way to it."""

    __tablename__ = "stage_steps"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    stage: Mapped[int] = mapped_column(primary_key=True)  # its place in the recipe
    step: Mapped[int] = mapped_column(primary_key=True)  # from 1
    name: Mapped[str]
    num_steps: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    time_ns: Mapped[int]


class TaskEvaluationRow(Base):
    """Describes what a model scored in a task: of a run's version, or of a model that no run trains."""

    __tablename__ = "task_evaluations"

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id"))
    version: Mapped[int | None]
    model: Mapped[str]
    digest: Mapped[str]
    task: Mapped[str]
    metric: Mapped[str]
    score: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]
    num_samples: Mapped[int]
    harness: Mapped[str]
    harness_version: Mapped[str]
    settings: Mapped[str]  # JSON, as it was sent
    time_ns: Mapped[int]
    payload: Mapped[bytes] = mapped_column(LargeBinary)  # the TaskEvaluation, whole

    __table_args__ = (Index(None, "run_id"), Index(None, "time_ns"))


class TaskSampleRow(Base):
    """One response in an evaluation by a task."""

    __tablename__ = "task_samples"

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("task_evaluations.id"), primary_key=True)
    problem: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    num_tokens: Mapped[int]
    payload: Mapped[bytes] = mapped_column(LargeBinary)  # the TaskSample
