"""Questions that repeat others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from perilune.curation import duplicates
from perilune.curation.processes import in_chunks
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.text import cleaned, without_label, words
from perilune.curation.workspace import Decision, Row, Survivors


class Duplicates(Stage):
    """`[duplicates]`: of questions that ask the same, one stays. Answers do not make questions different.

    Of those with one text it is the first of those whose answer most of them give, one without a list's number and in
    ordinary case before others; of those in other words it is the first.
    """

    title: ClassVar[str] = "Duplicates"
    near: bool = True  # also those in other words
    similarity: Annotated[float, Field(gt=0, le=1)] = duplicates.SIMILARITY  # from which on two ask the same

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes all but one of questions that ask the same."""
        places = [row.id for row in rows]
        signed = _signed(rows)
        exact = list(duplicates.exact_duplicates(signed, lambda group: _stays([rows[places[n]] for n in group], group)))
        yield from (_decision(rows, places, each, "exact duplicate") for each in exact)
        if not self.near:
            return
        gone = np.zeros(len(places), bool)
        gone[[each.row for each in exact]] = True
        tools.notify(f"duplicates: {len(exact):,} exact; comparing {len(places) - len(exact):,} questions")
        near = duplicates.near_duplicates(
            signed,
            np.flatnonzero(~gone),
            lambda number: rows.question(places[number]),
            self.similarity,
        )
        yield from (_decision(rows, places, each, "near duplicate") for each in near)


def _signed(rows: Survivors) -> duplicates.Signatures:
    questions = ((row.question, " ".join(digest for digest, _ in row.images)) for row in rows)
    return duplicates.Signatures.joined(list(in_chunks(_sign, None, questions, len(rows))))


def _sign(_: None, questions: Sequence[tuple[str, str]]) -> duplicates.Signatures:
    return duplicates.sign([text for text, _ in questions], [images for _, images in questions])


def _stays(rows: Sequence[Row], group: Sequence[int]) -> int:
    """The row that stays of those with one text."""
    said = [" ".join(words(row.answer)) for row in rows]
    votes = Counter(said)

    def rank(place: int) -> tuple[int, bool, bool, int]:
        question = cleaned(rows[place].question)
        is_shouted = question in (question.upper(), question.lower())
        return -votes[said[place]], without_label(question) != question, is_shouted, place

    return group[min(range(len(rows)), key=rank)]


def _decision(rows: Survivors, places: Sequence[int], found: duplicates.Duplicate, reason: str) -> Decision:
    row, stays = rows[places[found.row]], rows[places[found.of]]
    differs = "" if row.answer == stays.answer else f" (answers {row.answer!r:.60}, and that one {stays.answer!r:.60})"
    return Decision(row.id, reason, f"{found.similarity:.2f} of {stays.place}: {stays.question[:300]}{differs}")
