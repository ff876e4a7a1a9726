"""JSON as people write it into files: numbers keep their spelling, and what is wrong is named by its line."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from perilune.errors import InvalidInputError, NotFoundError

MAX_FILE_BYTES = 1 << 30  # of one file, all of which is held in memory
BOM = b"\xef\xbb\xbf"
# First bytes of files that are taken for text by mistake, and what to do with each.
FOREIGN = {
    b"\x1f\x8b": "is compressed by gzip: unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: unpack it first",
    b"PK\x03\x04": "is a zip archive: unpack it first",
    b"PAR1": "is a Parquet file",
    b"\xff\xfe": "is UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text: save it as UTF-8",
}


@dataclass(frozen=True)
class ExactNumber:
    """A number of a JSON text, as it is written there: 1.0 is not 1, and no digit is rounded away."""

    text: str

    def __repr__(self) -> str:
        return self.text


def lines_of(path: str | Path, what: str = "") -> Iterator[tuple[int, bytes]]:
    """Every line of a file that is not blank, with its number from 1.

    Lines end with a line feed alone: U+2028, U+2029 and U+0085 are characters of a text. A byte order mark is skipped.
    NotFoundError: the file cannot be opened; `what` says what it is for. InvalidInputError: it is no file of text.
    """
    for number, line in enumerate(read_bytes(path, what).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def parse_object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a line. InvalidInputError says where there is none."""
    row = parse_json(line, where)
    if not isinstance(row, dict):
        raise InvalidInputError(f"{where} is no JSON object: {line.decode('utf-8'):.60}")
    return row


def read_bytes(path: str | Path, what: str = "") -> bytes:
    """The content of a regular file of text, without a byte order mark; errors as `lines_of`."""
    with open_file(path, what) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        try:
            content = file.read(num_bytes + 1)
        except OSError as error:  # of a file that only seems one, or of its disk
            raise _cannot_read(path, what, error) from error
    if len(content) > num_bytes:
        raise InvalidInputError(f"{path} grows while it is read, or says no size, as those of /proc")
    for start, advice in FOREIGN.items():
        if content.startswith(start):
            raise InvalidInputError(f"{path} {advice}")
    return content.removeprefix(BOM)


def open_file(path: str | Path, what: str = "") -> BinaryIO:
    """Opens a regular file. NotFoundError: it cannot be opened. InvalidInputError: it is too large or no file."""
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise _cannot_read(path, what, error) from error
    if refusal := _refusal(os.fstat(file.fileno())):
        file.close()
        raise InvalidInputError(f"{path} {refusal}")
    return file


def _cannot_read(path: str | Path, what: str, error: OSError | ValueError) -> NotFoundError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return NotFoundError(f"cannot read {f'{what} ' if what else ''}{path}: {reason}")


def _refusal(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    return f"is larger than {MAX_FILE_BYTES >> 30} GiB: take a part of it" if status.st_size > MAX_FILE_BYTES else ""


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe is not waited for


def parse_json(content: bytes, where: str) -> Any:
    """Parses one JSON value; numbers are `ExactNumber`s, except NaN and infinities. InvalidInputError: it is none."""
    try:
        return json.loads(
            content.decode("utf-8"), parse_int=ExactNumber, parse_float=ExactNumber, object_pairs_hook=_without_repeats
        )
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{where} is no UTF-8 text: {error}") from error
    except RecursionError as error:
        raise InvalidInputError(f"{where} is nested too deeply") from error
    except ValueError as error:  # json.JSONDecodeError, and a repeated key
        raise InvalidInputError(f"{where} is no JSON: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return found
