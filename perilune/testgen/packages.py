"""CYaRon's files. The sandbox's Python has no packages, so those that a generator imports lie beside it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import PurePath

from perilune.errors import MissingDependencyError

# CYaRon and what it imports when it is used; `colorful` colours its log, and it does without.
DISTRIBUTIONS = ("cyaron", "xeger")
_IMPORTS = re.compile(r"^\s*(?:import|from)\s+(?:cyaron|xeger)\b", re.MULTILINE)
_LEFT_OUT = {"tests", "__pycache__"}


def files_beside(source: str) -> Mapping[str, bytes]:
    """The files of the packages that a generator imports, by path. MissingDependencyError if they are not installed."""
    return _files() if _IMPORTS.search(source) else {}


@functools.cache
def _files() -> Mapping[str, bytes]:
    return {path: content for name in DISTRIBUTIONS for path, content in _files_of(name).items()}


def _files_of(name: str) -> Mapping[str, bytes]:
    try:
        listed = metadata.files(name) or []
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            f"a generator imports CYaRon, and {name} is not installed: pip install 'perilune[testgen]'"
        ) from error
    wanted = [path for path in listed if path.suffix == ".py" and path.parts[0] == name]
    return {PurePath(path).as_posix(): path.read_binary() for path in wanted if not _LEFT_OUT & set(path.parts)}
