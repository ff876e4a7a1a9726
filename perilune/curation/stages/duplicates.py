"""Questions that repeat earlier ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from perilune.curation import duplicates
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.workspace import Decision, Survivors


class Duplicates(Stage):
    """`[duplicates]`: of questions that ask the same, the first stays. Answers do not count."""

    title: ClassVar[str] = "Duplicates"
    near: bool = True  # also those in other words
    similarity: Annotated[float, Field(gt=0, le=1)] = duplicates.SIMILARITY  # from which on two ask the same

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes all but the first of questions that ask the same."""
        places = [row.id for row in rows]
        exact = list(duplicates.exact_duplicates(row.question for row in rows))
        yield from (_decision(rows, places, each, "exact duplicate") for each in exact)
        if not self.near:
            return
        gone = {each.row for each in exact}
        left = [place for number, place in enumerate(places) if number not in gone]
        tools.notify(f"duplicates: {len(exact):,} exact; signing {len(left):,} questions")
        signed = duplicates.signatures((rows[place].question for place in left), len(left))
        for each in duplicates.near_duplicates(signed, lambda number: rows[left[number]].question, self.similarity):
            yield _decision(rows, left, each, "near duplicate")


def _decision(rows: Survivors, places: list[int], found: duplicates.Duplicate, reason: str) -> Decision:
    stays = rows[places[found.of]]
    return Decision(places[found.row], reason, f"{found.similarity:.2f} of {stays.place}: {stays.question[:300]}")
