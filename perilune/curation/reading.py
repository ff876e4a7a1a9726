"""Says what goes into a curation: rows of files or of a dataset, each with its place; a broken one is a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from perilune.curation.images import ImageStore
from perilune.curation.workspace import Row
from perilune.data.files import matching, rows_of
from perilune.data.huggingface import load_split
from perilune.data.rows import label_of, text_of, value_at
from perilune.errors import InvalidInputError
from perilune.recipe import Paths, Table

FileFormat = Literal["parquet", "json", "jsonl", "csv", "tsv"]


class InputTable(Table):
    """`[input]`: raw questions, and the keys under which a row has them. A key `a.b` is `b` of the object under `a`."""

    path: Paths = []  # a file, a pattern, or a list of them
    format: FileFormat | None = None  # if not given, by each file's suffix
    dataset: str = ""  # instead of `path`: a Hugging Face dataset by its name on the hub, or a folder
    config: str | None = None  # of the dataset
    split: str = "train"
    question: str = "question"
    answer: str = "answer"
    images: list[str] = []  # keys of pictures, which come before the question in this order
    labels: list[str] = []  # keys that are kept as labels

    @model_validator(mode="after")
    def _names_rows(self) -> InputTable:
        if bool(self.path) == bool(self.dataset):
            raise ValueError("input.path names files and input.dataset a Hugging Face dataset: write one of the two")
        return self


Reject = Callable[[str, InvalidInputError], None]
Raw = Iterator[tuple[str, Path, Mapping[str, Any] | InvalidInputError]]  # a row's place, and where its paths begin


def input_digests(table: InputTable) -> dict[str, str]:
    """The SHA-256 of each file, or the dataset's own fingerprint, by name. Errors as `read_rows`."""
    if table.dataset:
        return {_name(table): str(_load(table)._fingerprint)}
    return {path: file_digest(Path(path)) for path in matching(table.path)}


def read_rows(table: InputTable, images: ImageStore, reject: Reject) -> Iterator[Row]:
    """The rows that can be used.

    InvalidInputError: a file or dataset cannot be read. NotFoundError: there is no such file.
    """
    number = 0
    for where, beside, raw in _of_dataset(table) if table.dataset else _of_files(table):
        try:
            if isinstance(raw, InvalidInputError):
                raise raw
            yield _row(number, raw, table, images, beside, where)
        except InvalidInputError as error:
            reject(where, error)
        else:
            number += 1


def _row(number: int, raw: Mapping[str, Any], table: InputTable, images: ImageStore, beside: Path, where: str) -> Row:
    return Row(
        number,
        where,
        text_of(value_at(raw, table.question, where), where, table.question),
        text_of(value_at(raw, table.answer, where), where, table.answer),
        {key: label_of(value_at(raw, key, where), where, key) for key in table.labels},
        tuple(
            (image.digest, image.media_type)
            for key in table.images
            for image in images.keep(value_at(raw, key, where), beside, f"{where}: {key!r}")
        ),
    )


def _of_files(table: InputTable) -> Raw:
    for path in matching(table.path):
        yield from ((where, Path(path).parent, row) for where, row in rows_of(path, table.format))


def _of_dataset(table: InputTable) -> Raw:
    rows = _load(table)
    name, beside = _name(table), Path(table.dataset)
    try:
        for number, row in enumerate(rows):
            yield f"{name}, row {number}", beside, row
    except (OSError, ValueError) as error:  # a cell that the library cannot decode
        raise InvalidInputError(f"cannot read {name}: {error}") from error


def _load(table: InputTable) -> Any:
    return load_split(table.dataset, table.config, table.split, "input.dataset", "; set input.split")


def _name(table: InputTable) -> str:
    return f"{table.dataset}[{table.split}]"


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
