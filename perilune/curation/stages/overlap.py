"""Questions that evaluation sets hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from perilune.curation.overlap import EvaluationSets
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.workspace import Decision, Survivors
from perilune.data.files import matching, rows_of
from perilune.data.rows import value_at
from perilune.errors import InvalidInputError
from perilune.recipe import Paths, Table


class EvaluationFile(Table):
    """One evaluation set: a file of rows, and the key of its questions."""

    path: Paths
    question: str = "question"


class Overlap(Stage):
    """`[overlap]`: questions of evaluation sets leave, by the runs of words that they share."""

    title: ClassVar[str] = "Overlap with evaluation sets"
    sets: dict[str, EvaluationFile] = {}

    def off(self) -> str:
        """Off without evaluation sets."""
        return super().off() or ("" if self.sets else "no evaluation sets are given: name them under [overlap.sets]")

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes questions of the evaluation sets."""
        sets = EvaluationSets()
        for name, table in self.sets.items():
            num_questions = sets.add(name, _questions(name, table))
            tools.notify(f"overlap: {num_questions:,} questions of {name}")
        sets.leave_out_templates(row.question for row in rows)
        for row in rows:
            if found := sets.overlap(row.question):
                yield Decision(row.id, f"in {found.evaluation}", f"question {found.question}: … {found.evidence} …")


def _questions(name: str, table: EvaluationFile) -> Iterator[str]:
    for path in matching(table.path):
        for where, row in rows_of(path, None):
            if isinstance(row, InvalidInputError):
                raise InvalidInputError(f"overlap.sets.{name}: {row}")
            yield str(value_at(row, table.question, where))
