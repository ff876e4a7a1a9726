"""Questions that are guessed by their form, or that no answer verifies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from perilune.curation.question_types import MULTIPLE_CHOICE, opened, type_of
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.workspace import Decision, Survivors

TypeName = Literal["multiple choice", "true or false", "yes or no", "proof", "several parts"]


class Types(Stage):
    """`[types]`: leaves out types of questions, and opens multiple-choice ones that stand without their options."""

    title: ClassVar[str] = "Question types"
    exclude: list[TypeName] = ["multiple choice", "true or false", "yes or no", "proof", "several parts"]
    open_choices: bool = False

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes or opens questions by their type."""
        for row in rows:
            kind = type_of(row.question, row.answer)
            open_one = opened(row.question, row.answer) if self.open_choices and kind == MULTIPLE_CHOICE else None
            if open_one:
                yield Decision(row.id, question=open_one[0], answer=open_one[1], labels={"opened": "true"})
            elif kind in self.exclude:
                yield Decision(row.id, kind, row.question[:300])
