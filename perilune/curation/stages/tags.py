"""The domain and discipline of each question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from perilune.completions import ModelTable
from perilune.curation.asking import classified
from perilune.curation.processes import in_chunks
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.tagging import DISCIPLINES, OTHER, discipline_of
from perilune.curation.workspace import Decision, Survivors
from perilune.recipe import NonNegativeFloat, PositiveInt

PROMPT = """\
To which discipline does the question below belong? One of: {disciplines}.
Answer with a JSON object such as {"discipline": "algebra"}, and nothing else.

{question}"""


class TagsModelTable(ModelTable):
    """`[tags.model]`: a model that classifies questions."""

    temperature: NonNegativeFloat = 0.0
    max_tokens: PositiveInt = 64
    template: str = PROMPT


class Tags(Stage):
    """`[tags]`: labels each question with a `domain` and a `discipline`, by rules or by a model where one is given."""

    title: ClassVar[str] = "Tags"
    model: TagsModelTable = TagsModelTable()
    disciplines: dict[str, list[str]] = {}  # for the model: the disciplines of each domain; if not given, the rules'

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Labels all rows; one of which the model says nothing gets what the rules say, and is named as a failure."""
        if not self.model.is_given:
            for part in in_chunks(_by_rules, None, ((row.id, row.question) for row in rows), len(rows)):
                yield from part
            return
        domains = self.disciplines or DISCIPLINES
        names = [*(name for each in domains.values() for name in each), OTHER]
        model = self.model.model_copy(
            update={"template": self.model.template.replace("{disciplines}", ", ".join(names))}
        )
        for row, found in classified(model, {"discipline": list(dict.fromkeys(names))}, rows, tools):
            said = found["discipline"] if found else discipline_of(row.question)
            yield _labelled(row.id, domains, said)


def _by_rules(_: None, rows: Sequence[tuple[int, str]]) -> list[Decision]:
    return [_labelled(number, DISCIPLINES, discipline_of(question)) for number, question in rows]


def _labelled(row: int, domains: Mapping[str, list[str]], discipline: str) -> Decision:
    domain = next((name for name, disciplines in domains.items() if discipline in disciplines), OTHER)
    return Decision(row, labels={"domain": domain, "discipline": discipline})
