"""A dataset in Hugging Face's format: by its name on the hub, or a folder or file on disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.data.files import Row
from perilune.errors import InvalidInputError, MissingDependencyError
from perilune.recipe import HuggingFacePrompts
from services.master.prompts.files import read_prompts
from services.master.prompts.prompt import ListedPrompts, hold_out, keep_apart
from services.master.prompts.rows import prompts_of_rows

MAX_FILES = 100_000  # of a folder, looked at before it is read
# Readers of text that guess the type of a column: 007 comes as 7, 1 as 1.0, a long number rounded.
GUESSING_READERS = ("csv", "json")


def open_prompts(table: HuggingFacePrompts, seed: int) -> ListedPrompts:
    """The prompts of a dataset's splits, in its order."""
    name = f"{table.dataset}[{table.split}]"
    if Path(table.dataset).is_file():
        return _open_file(table)
    prompts, notes = _prompts(table, table.split)
    if not table.heldout_split:
        return hold_out(prompts, table.num_heldout, name, notes)
    heldout, more = _prompts(table, table.heldout_split)
    return keep_apart(prompts, heldout, name, [*notes, *more])


def _open_file(table: HuggingFacePrompts) -> ListedPrompts:
    if table.split != "train" or table.heldout_split:
        raise InvalidInputError(
            f"{table.dataset} is one file without splits: leave prompts.split and prompts.heldout_split out, or set "
            "prompts.source = 'file', with path and heldout_path"
        )
    prompts, notes = read_prompts([table.dataset], None, table)
    return hold_out(prompts, table.num_heldout, table.dataset, notes)


def _prompts(table: HuggingFacePrompts, split: str) -> tuple[list[Prompt], list[str]]:
    name = f"{table.dataset}[{split}]"
    return prompts_of_rows(_rows(table, split, name), table, name)


def _rows(table: HuggingFacePrompts, split: str, name: str) -> Iterator[tuple[str, Row]]:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("prompts.source = 'huggingface' needs `pip install datasets`") from error
    # What the library raises for names, folders, files, splits and configurations that are not there or not right.
    library_errors = (OSError, ValueError, KeyError, ImportError, datasets.exceptions.DatasetsError)
    try:
        rows = _load(table, split)
        keys = [key for key in (table.answer, *table.labels) if _is_guessed(rows, key)]
        if keys:
            raise InvalidInputError(
                f"{name}: {keys[0]!r} is a column of numbers that were read from text, and no more as they were written"
                ": give the files by their paths, with prompts.source = 'file'"
            )
        yield from ((f"{name}, row {number}", row) for number, row in enumerate(rows))
    except library_errors as error:
        raise InvalidInputError(f"prompts: cannot load {table.dataset!r}, split {split!r}: {error}") from error


def _load(table: HuggingFacePrompts, split: str) -> Any:
    """The rows of one split: a folder that `save_to_disk` wrote, or whatever `load_dataset` understands."""
    import datasets

    saved = Path(table.dataset)
    _check_files(saved)
    if not (saved / "dataset_dict.json").exists() and not (saved / "state.json").exists():
        return datasets.load_dataset(table.dataset, table.config, split=split)
    found = datasets.load_from_disk(table.dataset)
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise InvalidInputError(f"{table.dataset} has no split {split!r}; it has {', '.join(map(repr, found))}")
        return found[split]
    if split != str(found.split or "train"):
        holds = f"holds the split {str(found.split)!r} alone" if found.split else "is one dataset without splits"
        raise InvalidInputError(
            f"{table.dataset} {holds}, and {split!r} is asked for; without prompts.heldout_split the last "
            "prompts.num_heldout rows are held out"
        )
    return found


def _check_files(folder: Path) -> None:
    """InvalidInputError for a pipe or a device, which the library would read for ever."""
    paths = itertools.islice(folder.rglob("*"), MAX_FILES) if folder.is_dir() else [folder]
    for path in paths:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InvalidInputError(f"prompts: {path} is no regular file")


def _is_guessed(rows: Any, key: str) -> bool:
    kind = rows.features.get(key)
    return rows.info.builder_name in GUESSING_READERS and getattr(kind, "dtype", "string").startswith(
        ("float", "double") if rows.info.builder_name == "json" else ("float", "double", "int")
    )
