"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from perilune.errors import StateError


def read_text(path: Path) -> str | None:
    """A file's text; None if there is no such file. StateError: it cannot be read."""
    try:
        return path.read_text("utf-8", "surrogatepass")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise StateError(f"cannot read {path}: {error}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under another name, and gives it its own when all is on the disk. StateError: it cannot."""
    with whole_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that gets its name when all of it is on the disk. StateError: it cannot be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise StateError(
            f"cannot write {path}: {error.strerror}; what is finished is kept, and the same command goes on"
        ) from error
