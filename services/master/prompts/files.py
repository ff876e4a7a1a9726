"""One's own files: Parquet, JSON, JSON lines and CSV, by their suffixes or as the recipe says."""

from __future__ import annotations

import csv
import glob
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.data.jsonlines import lines_of, open_file, parse_json, parse_object, read_bytes
from perilune.errors import InvalidInputError, MissingDependencyError, NotFoundError
from perilune.recipe import FilePrompts, JsonlPrompts, RowPrompts
from services.master.prompts.prompt import ListedPrompts, hold_out, keep_apart
from services.master.prompts.rows import Row, prompts_of_rows


def open_prompts(table: JsonlPrompts | FilePrompts, seed: int) -> ListedPrompts:
    """The prompts of a recipe's files; neither these nor their order depend on the seed."""
    paths, heldout_paths, file_format = (
        ([table.path], [table.heldout_path] if table.heldout_path else [], "jsonl")
        if isinstance(table, JsonlPrompts)
        else (_matching(table.path), _matching(table.heldout_path or []), table.format)
    )
    name = ", ".join(paths)
    prompts, notes = read_prompts(paths, file_format, table)
    if not heldout_paths:
        return hold_out(prompts, table.num_heldout, name, notes)
    heldout, more = read_prompts(heldout_paths, file_format, table)
    return keep_apart(prompts, heldout, name, [*notes, *more])


def read_prompts(paths: Iterable[str], file_format: str | None, table: RowPrompts) -> tuple[list[Prompt], list[str]]:
    """The prompts of all files, and what is to be said of them. InvalidInputError names what is wrong, and where."""
    prompts: list[Prompt] = []
    notes: list[str] = []
    for path in paths:
        try:
            found, said = prompts_of_rows(_rows(path, file_format), table, path)
        except NotFoundError as error:
            raise InvalidInputError(f"prompts: {error}") from error
        prompts += found
        notes += said
    return prompts, notes


def _matching(patterns: Iterable[str]) -> list[str]:
    """The files that paths and patterns name, each once."""
    found: dict[str, None] = {}
    for pattern in patterns:
        is_pattern = glob.has_magic(pattern) and not Path(pattern).exists()
        paths = sorted(glob.glob(pattern, recursive=True)) if is_pattern else [pattern]
        if not paths:
            raise InvalidInputError(f"prompts: no file matches {pattern}")
        found |= dict.fromkeys(paths)
    return list(found)


def _rows(path: str, file_format: str | None) -> Iterator[tuple[str, Row]]:
    suffix = file_format or Path(path).suffix.removeprefix(".").lower()
    if suffix not in READERS:
        raise InvalidInputError(
            f"prompts: {path} ends in none of {', '.join(READERS)}; set prompts.format to one of them"
        )
    return READERS[suffix](path)


def _json_lines(path: str) -> Iterator[tuple[str, Row]]:
    return (_line(line, f"{path}, line {number}") for number, line in lines_of(path))


def _line(line: bytes, where: str) -> tuple[str, Row]:
    try:
        return where, parse_object(line, where)
    except InvalidInputError as error:
        return where, error


def _json(path: str) -> Iterator[tuple[str, Row]]:
    """A list of objects; or JSON lines, which often have this suffix too."""
    content = read_bytes(path)
    if not content.lstrip().startswith(b"["):
        yield from _json_lines(path)
        return
    for number, row in enumerate(parse_json(content, path)):
        where = f"{path}, row {number}"
        yield where, row if isinstance(row, dict) else InvalidInputError(f"{where} is no JSON object")


def _separated(path: str, delimiter: str) -> Iterator[tuple[str, Row]]:
    """A line of names, and a line for each row. Everything in it is text."""
    csv.field_size_limit(sys.maxsize)
    try:
        lines = csv.reader(io.StringIO(read_bytes(path).decode("utf-8"), newline=""), delimiter=delimiter, strict=True)
        names = next(lines, [])
        if len(set(names)) < len(names):
            raise InvalidInputError(f"{path} has two columns of one name: {', '.join(names)}")
        for fields in filter(None, lines):
            where = f"{path}, line {lines.line_num}"
            wrong = InvalidInputError(f"{where} has {len(fields)} fields, and the first line names {len(names)}")
            yield where, dict(zip(names, fields, strict=True)) if len(fields) == len(names) else wrong
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is no UTF-8 text: {error}") from error
    except csv.Error as error:
        raise InvalidInputError(f"{path}, line {lines.line_num}: {error}") from error


def _parquet(path: str) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("prompts in Parquet files need `pip install pyarrow`") from error
    try:
        with open_file(path) as file:
            parts = pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=4096)
            rows: Iterator[Any] = (row for part in parts for row in part.to_pylist())
            yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInputError(f"prompts: {path} is no Parquet file that can be read: {error}") from error


READERS: dict[str, Callable[[str], Iterator[tuple[str, Row]]]] = {
    "parquet": _parquet,
    "json": _json,
    "jsonl": _json_lines,
    "csv": lambda path: _separated(path, ","),
    "tsv": lambda path: _separated(path, "\t"),
}
