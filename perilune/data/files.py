"""Files of rows: Parquet, JSON, JSON lines, CSV and what `datasets` saved, by their suffixes or as one says."""

from __future__ import annotations

import csv
import glob
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from perilune.data.jsonlines import lines_of, open_file, parse_json, parse_object, read_bytes
from perilune.errors import InvalidInputError, MissingDependencyError

Row = Mapping[str, Any] | InvalidInputError  # or why it could not be read


def matching(patterns: Iterable[str]) -> list[str]:
    """The files that paths and patterns name, each once."""
    found: dict[str, None] = {}
    for pattern in patterns:
        is_pattern = glob.has_magic(pattern) and not Path(pattern).exists()
        paths = sorted(glob.glob(pattern, recursive=True)) if is_pattern else [pattern]
        if not paths:
            raise InvalidInputError(f"no file matches {pattern}")
        found |= dict.fromkeys(paths)
    return list(found)


def rows_of(path: str, file_format: str | None, line_form: str = "{}, line {}") -> Iterator[tuple[str, Row]]:
    """The rows of one file, each with its place in words; a row that cannot be read is the reason.

    `line_form`: how a line of a file is named. InvalidInputError: no file of that format. NotFoundError: no such file.
    """
    suffix = file_format or ("arrow" if Path(path).is_dir() else Path(path).suffix.removeprefix(".").lower())
    if suffix not in READERS:
        raise InvalidInputError(f"{path} ends in none of {', '.join(READERS)}; set `format` to one of them")
    return READERS[suffix](path, line_form)


def _json_lines(path: str, line_form: str) -> Iterator[tuple[str, Row]]:
    return (_line(line, line_form.format(path, number)) for number, line in lines_of(path))


def _line(line: bytes, where: str) -> tuple[str, Row]:
    try:
        return where, parse_object(line, where)
    except InvalidInputError as error:
        return where, error


def _json(path: str, line_form: str) -> Iterator[tuple[str, Row]]:
    """A list of objects; or JSON lines, which often have this suffix too."""
    content = read_bytes(path)
    if not content.lstrip().startswith(b"["):
        yield from _json_lines(path, line_form)
        return
    for number, row in enumerate(parse_json(content, path)):
        where = f"{path}, row {number}"
        yield where, row if isinstance(row, dict) else InvalidInputError(f"{where} is no JSON object")


def _separated(path: str, line_form: str, delimiter: str) -> Iterator[tuple[str, Row]]:
    """A line of names, and a line for each row. Everything in it is text."""
    csv.field_size_limit(sys.maxsize)
    try:
        lines = csv.reader(io.StringIO(read_bytes(path).decode("utf-8"), newline=""), delimiter=delimiter, strict=True)
        names = next(lines, [])
        if len(set(names)) < len(names):
            raise InvalidInputError(f"{path} has two columns of one name: {', '.join(names)}")
        for fields in filter(None, lines):
            where = line_form.format(path, lines.line_num)
            wrong = InvalidInputError(f"{where} has {len(fields)} fields, and the first line names {len(names)}")
            yield where, dict(zip(names, fields, strict=True)) if len(fields) == len(names) else wrong
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is no UTF-8 text: {error}") from error
    except csv.Error as error:
        raise InvalidInputError(f"{line_form.format(path, lines.line_num)}: {error}") from error


def _parquet(path: str, _: str) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("Parquet files need `pip install pyarrow`") from error
    try:
        with open_file(path) as file:
            parts = pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=4096)
            rows: Iterator[Any] = (row for part in parts for row in part.to_pylist())
            yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInputError(f"{path} is no Parquet file that can be read: {error}") from error


def _saved_dataset(path: str, _: str) -> Iterator[tuple[str, Row]]:
    """A folder that `Dataset.save_to_disk` wrote; of several splits, `train`. Needs pyarrow, and no `datasets`."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise MissingDependencyError("folders that `datasets` saved need `pip install pyarrow`") from error
    number = 0
    for file in _arrow_files(Path(path)):
        try:
            with pyarrow.memory_map(str(file)) as source:
                for part in pyarrow.ipc.open_stream(source):
                    for row in part.to_pylist():
                        yield f"{path}, row {number}", row
                        number += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise InvalidInputError(f"{file} is no Arrow file that can be read: {error}") from error


def _arrow_files(folder: Path) -> list[Path]:
    """The files of a saved data set, in their order. InvalidInputError: it is none, or has splits and no `train`."""
    splits = _saved_json(folder / "dataset_dict.json").get("splits", [])
    if splits and "train" not in splits:
        raise InvalidInputError(f"{folder} has the splits {', '.join(splits)}: name the folder of one, {folder}/SPLIT")
    folder = folder / "train" if splits else folder
    names = [part.get("filename", "") for part in _saved_json(folder / "state.json").get("_data_files", [])]
    if not names:
        raise InvalidInputError(
            f"{folder} is a folder, and none that `Dataset.save_to_disk` wrote; name the files in it: {folder}/*.jsonl"
        )
    return [folder / name for name in names]


def _saved_json(file: Path) -> dict[str, Any]:
    """A small JSON file of a saved data set; empty where there is none. InvalidInputError: it is no JSON."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}") from error


READERS: dict[str, Callable[[str, str], Iterator[tuple[str, Row]]]] = {
    "parquet": _parquet,
    "json": _json,
    "jsonl": _json_lines,
    "csv": lambda path, line_form: _separated(path, line_form, ","),
    "tsv": lambda path, line_form: _separated(path, line_form, "\t"),
    "arrow": _saved_dataset,
}
