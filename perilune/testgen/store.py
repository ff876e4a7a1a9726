"""Results on disk: a file for each problem, named by a digest of it and the settings, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perilune.errors import InvalidInputError, StateError

RESULTS, WRITTEN = "problems", "written"


def digest_of(*parts: Any) -> str:
    """The digest of values of JSON, by which a result is found again."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def open_folder(path: Path) -> Path:
    """Makes the folder of results. InvalidInputError: it cannot be one."""
    try:
        for name in (RESULTS, WRITTEN):
            (path / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"cannot write to {path}: {error.strerror}; name another folder by --out") from error
    return path


def load(folder: Path, digest: str) -> Mapping[str, Any] | None:
    """A finished result; None if there is none, or no whole one."""
    text = read_text(_path(folder, digest))
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("digest") == digest else None


def save(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes a finished result. StateError: the disk does not take it."""
    write_whole(_path(folder, result["digest"]), json.dumps(result, indent=1).encode())


def _path(folder: Path, digest: str) -> Path:
    return folder / RESULTS / f"{digest[:32]}.json"


def read_text(path: Path) -> str | None:
    """A file's text; None if there is no such file."""
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
