"""Texts in one form, and rows that say nothing out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.text import cleaned
from perilune.curation.workspace import Decision, Survivors
from perilune.recipe import PositiveInt

# What stands where an answer should, in sets that were taken from books and pages.
_PLACEHOLDER = re.compile(
    r"(?:see (?:the )?(?:text|solution|proof|figure|above|below|explanation|attached|book|notes|answer key)s?"
    r"|n/?a|none given|no (?:answer|solution given)|not (?:given|available|applicable|provided)|unknown|tb[ad]|todo"
    r"|(?:the )?(?:answers?|results?) (?:may |will )?var(?:y|ies)|(?:it is )?left to the reader|as (?:above|shown)"
    r"|(?:the )?(?:figure|proof|diagram|graph)|omitted|nan|null|undefined answer|[?.\-–—_*]+)\.?",
    re.IGNORECASE,
)


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
        if not answer or _PLACEHOLDER.fullmatch(answer):
            return "no answer"
        if len(question.split()) < self.min_words:
            return "too short"
        too_long = len(question) > self.max_chars or len(answer) > self.max_answer_chars
        return "too long" if too_long else ""
