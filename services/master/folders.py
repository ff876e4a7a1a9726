"""Files that a recipe may name: the master reads them for its submitter, who may not read all that the master can.

A caller that is no `admin` may name files of the folders in PERILUNE_DATA_FOLDERS and of runs in the home; where that
is set, so may everyone. Others are refused before any of them is looked at, whether they exist or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from perilune.errors import InvalidInputError
from perilune.recipe import Recipe

# Keys whose values may be files although they look like names, too; and those whose values are text alone.
PATH_KEYS = frozenset({"path", "heldout_path", "dataset", "chat_template", "model", "frozen_model", "fonts", "task"})
TEXT_KEYS = frozenset({"stop", "template", "marker"})
NOT_OF_RUNS = frozenset({"logs", "nats", "services", "blobs"})  # folders of the home
MAX_PATH_CHARS = 4096


def check_folders(recipe: Recipe, allowed: Sequence[Path], home: Path, here: Path) -> None:
    """InvalidInputError names a file outside the allowed folders and the home's runs; relative ones lie in `here`."""
    roots = [folder.expanduser().resolve() for folder in allowed]
    for key, text in _paths_in(recipe.model_dump(mode="json"), here):
        found = _resolved(text, here)
        if found is None or not (any(found.is_relative_to(root) for root in roots) or _is_of_a_run(found, home)):
            raise InvalidInputError(
                f"{key}: {text[:200]!r} lies in no folder that a recipe of yours may name; the operator of the master "
                "names them in PERILUNE_DATA_FOLDERS"
            )


def _paths_in(value: Any, here: Path, key: str = "") -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for name, each in value.items():
                yield from _paths_in(each, here, f"{key}.{name}" if key else str(name))
        case list():
            for each in value:
                yield from _paths_in(each, here, key)
        case str():
            name = key.rpartition(".")[2]
            path = _after_mark(value) if name == "task" else value
            if _is_path(path, name, here):
                yield key, path


def _after_mark(task: str) -> str:
    """The file in a task that is evaluated, `name=FILE` or `harness:FILE`; else the task."""
    return task.rpartition("=")[2] if "=" in task else task.rpartition(":")[2]


def _is_path(text: str, key: str, here: Path) -> bool:
    is_written_out = key == "chat_template" and ("{{" in text or "{%" in text)
    if key in TEXT_KEYS or is_written_out or len(text) > MAX_PATH_CHARS or "\n" in text:
        return False
    if text.startswith(("/", "~", "file:")) or ".." in Path(text).parts:
        return True
    return key in PATH_KEYS and _resolved(text, here) is not None and (here / text).exists()


def _resolved(text: str, here: Path) -> Path | None:
    """The file, or what lies before a pattern's first wild card, with no link left; None if there can be none."""
    plain = text.removeprefix("file://").removeprefix("file:")
    try:
        parts = (here / Path(plain).expanduser()).parts
        wild = next((place for place, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
        return Path(*parts[:wild]).resolve()
    except (OSError, RuntimeError, ValueError):  # a link that goes in circles, no such user, a NUL
        return None


def _is_of_a_run(found: Path, home: Path) -> bool:
    root = home.resolve()
    inside = found.relative_to(root).parts if found.is_relative_to(root) else ()
    return len(inside) >= 2 and inside[0] not in NOT_OF_RUNS
