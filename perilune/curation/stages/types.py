"""Questions that are guessed by their form, or that no answer verifies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from perilune.completions import ModelTable
from perilune.curation.asking import classified
from perilune.curation.processes import in_chunks
from perilune.curation.question_types import MULTIPLE_CHOICE, OPEN, TYPES, opened, type_of
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.workspace import Decision, Row, Survivors
from perilune.recipe import NonNegativeFloat, PositiveInt

TypeName = Literal["multiple choice", "true or false", "yes or no", "either or", "proof", "several parts"]

PROMPT = """\
Of which type is the question below? The types:
- multiple choice: it offers options to choose from
- true or false: it asks whether a statement is true
- yes or no: it is answered with yes or no
- either or: it names two things, and one of them is the answer
- proof: it asks to prove, show or explain something
- several parts: it asks for several answers
- open: all others
Answer with a JSON object such as {"type": "open"}, and nothing else.

{question}"""


class TypesModelTable(ModelTable):
    """`[types.model]`: a model that classifies questions."""

    temperature: NonNegativeFloat = 0.0
    max_tokens: PositiveInt = 64
    template: str = PROMPT


class Types(Stage):
    """`[types]`: leaves out types of questions, and opens multiple-choice ones that stand without their options.

    Rules decide; what they call open is put to a model where one is given.
    """

    title: ClassVar[str] = "Question types"
    exclude: list[TypeName] = ["multiple choice", "true or false", "yes or no", "either or", "proof", "several parts"]
    open_choices: bool = False
    model: TypesModelTable = TypesModelTable()

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes or opens questions by their type."""
        by_rules: dict[int, str] = {}
        texts = ((row.id, row.question, row.answer) for row in rows)
        for part in in_chunks(_types_of, None, texts, len(rows)):
            by_rules |= part
        for number, kind in by_rules.items():
            yield from self._decision(rows[number], kind)
        if self.model.is_given:
            left = rows.without(by_rules)
            for row, found in classified(self.model, {"type": [*TYPES, OPEN]}, left, tools):
                if found and found["type"] != OPEN:
                    yield from self._decision(row, found["type"], f"{self.model.name}: ")

    def _decision(self, row: Row, kind: str, said_by: str = "") -> Iterator[Decision]:
        open_one = opened(row.question, row.answer) if self.open_choices and kind == MULTIPLE_CHOICE else None
        if open_one:
            yield Decision(row.id, question=open_one[0], answer=open_one[1], labels={"opened": "true"})
        elif kind in self.exclude:
            yield Decision(row.id, kind, f"{said_by}answer {row.answer!r:.100}")


def _types_of(_: None, rows: list[tuple[int, str, str]]) -> dict[int, str]:
    """The types of rows that are not open."""
    return {number: kind for number, question, answer in rows if (kind := type_of(question, answer)) != OPEN}
