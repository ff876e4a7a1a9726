"""Results on disk: a file for each problem, named by a digest of it and the settings, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perilune.data.whole_files import read_text, write_whole
from perilune.errors import InvalidInputError

RESULTS = "problems"


def digest_of(*parts: Any) -> str:
    """The digest of values of JSON, by which a result is found again."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def open_folder(path: Path) -> Path:
    """Makes the folder of results. InvalidInputError: it cannot be one."""
    try:
        (path / RESULTS).mkdir(parents=True, exist_ok=True)
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
