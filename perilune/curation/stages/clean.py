"""Texts in one form, and rows that say nothing out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.text import cleaned
from perilune.curation.workspace import Decision, Survivors
from perilune.recipe import PositiveInt


class Clean(Stage):
    """`[clean]`: normalises questions and answers (`text.cleaned`), and bounds their lengths."""

    title: ClassVar[str] = "Cleaning"
    min_words: PositiveInt = 2  # of a question
    max_chars: PositiveInt = 20_000
    max_answer_chars: PositiveInt = 2_000

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes rows that say too little or too much."""
        for row in rows:
            question, answer = cleaned(row.question), cleaned(row.answer)
            if reason := self._broken(question, answer):
                yield Decision(row.id, reason, question[:200])
            elif (question, answer) != (row.question, row.answer):
                yield Decision(row.id, question=question, answer=answer)

    def _broken(self, question: str, answer: str) -> str:
        if not answer:
            return "no answer"
        if len(question.split()) < self.min_words:
            return "too short"
        too_long = len(question) > self.max_chars or len(answer) > self.max_answer_chars
        return "too long" if too_long else ""
