"""The folder of a curation: rows as they were read, and what each stage decided, kept so that a stopped one goes on.

    rows.arrow               every row that could be read, in order; looked up by place without holding it in memory
    decisions/STAGE.parquet  what a stage removed, changed or labelled, with the reason
    decisions/STAGE.json     what it was decided from (a digest), and how long it took

A stage's files are renamed into place when it is finished: what is there is whole.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from perilune.errors import StateError

T = TypeVar("T")

BATCH_ROWS = 4096
ROW_SCHEMA = pa.schema(
    [
        ("place", pa.string()),
        ("question", pa.large_string()),
        ("answer", pa.large_string()),
        ("labels", pa.string()),  # JSON
        ("images", pa.string()),  # JSON: digests and media types
    ]
)
DECISION_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("reason", pa.string()),  # why it left; null if it stayed
        ("evidence", pa.large_string()),
        ("question", pa.large_string()),  # the new text; null if it is as before
        ("answer", pa.large_string()),
        ("labels", pa.string()),  # JSON, added to those before
    ]
)


@dataclass(frozen=True)
class Row:
    """One question on its way through the stages."""

    id: int  # its place among all rows that could be read
    place: str  # file and line, for people
    question: str
    answer: str
    labels: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[tuple[str, str]] = ()  # digest and media type of each picture


@dataclass(frozen=True)
class Decision:
    """Describes what a stage says of a row: that it leaves and why, or what is new. Rows without one stay as they
    are."""

    row: int
    reason: str | None = None
    evidence: str = ""
    question: str | None = None
    answer: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class Workspace:
    """A curation's folder. StateError if it is another curation's, or something else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._decisions = folder / "decisions"
        if folder.exists() and any(folder.iterdir()) and not self._decisions.is_dir():
            raise StateError(f"{folder} is not empty and no curation's folder: choose another one")
        self._decisions.mkdir(parents=True, exist_ok=True)

    # --- Rows ---------------------------------------------------------------------------------------------------------

    def write_rows(self, rows: Iterable[Row]) -> int:
        """Writes all rows; gives their number."""
        num_rows = 0
        with (
            replacing(self.folder / "rows.arrow") as path,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, ROW_SCHEMA) as writer,
        ):
            for batch in batched(rows):
                num_rows += len(batch)
                columns = [(row.place, row.question, row.answer, _json(row.labels), _json(row.images)) for row in batch]
                arrays = [
                    pa.array(column, kind.type)
                    for column, kind in zip(zip(*columns, strict=True), ROW_SCHEMA, strict=True)
                ]
                writer.write_batch(pa.record_batch(arrays, schema=ROW_SCHEMA))
        return num_rows

    def rows(self) -> AllRows:
        """The rows as they were read."""
        return AllRows(self.folder / "rows.arrow")

    # --- Decisions ----------------------------------------------------------------------------------------------------

    def finished(self, stage: str, key: str) -> dict[str, Any] | None:
        """Returns what is known of a stage that was finished on just this input; None if it has to be done."""
        try:
            summary: dict[str, Any] = json.loads((self._decisions / f"{stage}.json").read_text())
        except (OSError, ValueError):
            return None
        return summary if summary.get("key") == key and (self._decisions / f"{stage}.parquet").exists() else None

    def write_decisions(self, stage: str, decisions: Iterable[Decision]) -> None:
        """Writes what a stage decides, as it decides it; the file appears when the stage is done."""
        with (
            replacing(self._decisions / f"{stage}.parquet") as path,
            pq.ParquetWriter(path, DECISION_SCHEMA) as writer,
        ):
            for batch in batched(decisions):
                columns = zip(
                    *(
                        (d.row, d.reason, d.evidence, d.question, d.answer, json.dumps(d.labels) if d.labels else None)
                        for d in batch
                    ),
                    strict=True,
                )
                arrays = [pa.array(column, kind.type) for column, kind in zip(columns, DECISION_SCHEMA, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=DECISION_SCHEMA))

    def finish(self, stage: str, summary: Mapping[str, Any]) -> None:
        """Says that a stage is done, and on which input."""
        with replacing(self._decisions / f"{stage}.json") as path:
            path.write_text(json.dumps(summary, indent=1))

    def decisions(self, stage: str) -> Iterator[Decision]:
        """Returns what a finished stage decided."""
        file = pq.ParquetFile(self._decisions / f"{stage}.parquet")
        for batch in file.iter_batches(BATCH_ROWS):
            for each in batch.to_pylist():
                labels = json.loads(each["labels"]) if each["labels"] else {}
                yield Decision(
                    each["row"], each["reason"], each["evidence"] or "", each["question"], each["answer"], labels
                )


class AllRows:
    """Every row of a curation by its place, from a mapped file."""

    def __init__(self, path: Path) -> None:
        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._questions = self._table["question"]

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def question(self, row: int) -> str:
        """The question at a place."""
        return str(self._questions[row].as_py())

    def __getitem__(self, row: int) -> Row:
        return _row(row, self._table.slice(row, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Row]:
        number = 0
        for batch in self._table.to_batches(BATCH_ROWS):
            for each in batch.to_pylist():
                yield _row(number, each)
                number += 1


def _row(number: int, found: Mapping[str, Any]) -> Row:
    labels = json.loads(found["labels"]) if found["labels"] else {}
    images = [(digest, media_type) for digest, media_type in json.loads(found["images"])] if found["images"] else ()
    return Row(number, found["place"], found["question"], found["answer"], labels, tuple(images))


def _json(value: Any) -> str | None:
    return json.dumps(value) if value else None


class Survivors:
    """The rows that stages before have left, as those stages have left them."""

    def __init__(self, rows: AllRows, decided: Iterable[Iterable[Decision]]) -> None:
        self._rows = rows
        self._gone = bytearray(len(rows))
        self._changed: dict[int, Decision] = {}
        for decisions in decided:
            self.apply(decisions)

    def apply(self, decisions: Iterable[Decision]) -> None:
        """Takes the decisions of a further stage."""
        for each in decisions:
            if each.reason is not None:
                self._gone[each.row] = 1
            elif before := self._changed.get(each.row):
                self._changed[each.row] = replace(
                    each,
                    question=before.question if each.question is None else each.question,
                    answer=before.answer if each.answer is None else each.answer,
                    labels={**before.labels, **each.labels},
                )
            else:
                self._changed[each.row] = each

    def without(self, rows: Iterable[int]) -> Survivors:
        """The same rows but for some."""
        left = Survivors(self._rows, [])
        left._gone, left._changed = bytearray(self._gone), self._changed
        for row in rows:
            left._gone[row] = 1
        return left

    def only(self, rows: Collection[int]) -> Survivors:
        """Some of the rows, by their places."""
        return self.without(row for row, gone in enumerate(self._gone) if not gone and row not in rows)

    def __len__(self) -> int:
        return len(self._gone) - sum(self._gone)

    def __iter__(self) -> Iterator[Row]:
        return (self._as_left(row) for row in self._rows if not self._gone[row.id])

    def __getitem__(self, row: int) -> Row:
        return self._as_left(self._rows[row])

    def question(self, row: int) -> str:
        """The question of a row, without what else the row has: quicker."""
        change = self._changed.get(row)
        return self._rows.question(row) if change is None or change.question is None else change.question

    def _as_left(self, row: Row) -> Row:
        change = self._changed.get(row.id)
        if change is None:
            return row
        return replace(
            row,
            question=row.question if change.question is None else change.question,
            answer=row.answer if change.answer is None else change.answer,
            labels={**row.labels, **change.labels},
        )


def batched(items: Iterable[T], size: int = BATCH_ROWS) -> Iterator[list[T]]:
    """Items in lists of a size, the last one shorter."""
    several = iter(items)
    while batch := list(itertools.islice(several, size)):
        yield batch


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file beside the path that takes its place at the end; it is removed if something goes wrong."""
    beside = path.with_name(f".{path.name}.part")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
