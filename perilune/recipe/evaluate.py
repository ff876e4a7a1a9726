"""`[[evaluate]]`: tasks that versions of the run are measured by, beside training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from perilune.errors import InvalidInputError
from perilune.recipe.reward import GraderTable
from perilune.table import NonNegativeFloat, NonNegativeInt, PositiveInt, Table


class EvaluateTable(Table):
    """One task, as `perilune evaluate` names it, and the versions that it measures: the first and the last too."""

    task: Annotated[str, Field(min_length=1)]  # NAME, NAME=FILE, FILE.jsonl, lm-eval:NAME, inspect:NAME
    every: PositiveInt | None = None  # versions
    versions: list[NonNegativeInt] = []  # these; with neither the first and the last alone
    limit: PositiveInt | None = None  # problems; all if not given
    num_samples: PositiveInt | None = None  # these four: the task's own if not given
    temperature: NonNegativeFloat | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: PositiveInt | None = None
    plain: bool = False  # without a chat template
    graders: list[GraderTable] = []  # for prompts of one's own

    @field_validator("task")
    @classmethod
    def _is_known(cls, task: str) -> str:
        from perilune.evaluation.benchmarks import check_name

        try:
            check_name(task)
        except InvalidInputError as error:
            raise ValueError(str(error)) from error
        return task

    def is_due(self, number: int, last: int) -> bool:
        """Tests whether a version is to be measured, of a run whose last one has that number."""
        return number in (0, last, *self.versions) or bool(self.every and number % self.every == 0)
