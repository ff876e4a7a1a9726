"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            try:
                file.write(content)
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
