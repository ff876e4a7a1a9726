"""`[teacher]`: a frozen model that says how likely it finds what the policy wrote, for the objective `distill`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from perilune.table import NonNegativeInt, Table


class TeacherTable(Table):
    """The teacher: a model with the policy's tokenizer, in a rollout service of its own."""

    # As model.path names one. `perilune train` serves it; where PERILUNE_TEACHER_ADDRESS or `address` says that it is
    # served elsewhere, this says which model that is, and its tokenizer is compared if it can be read here.
    model: Annotated[str, Field(min_length=1)]
    address: str | None = None  # HOST:PORT of its service, where a fleet has several teachers; else the fleet's own
    # At each token, the policy's likeliest ids over which its divergence from the teacher is taken, for the control
    # variate; the whole vocabulary, if that has no more. 0: it is not taken, and a sample is read once less.
    top_k: NonNegativeInt = 100
