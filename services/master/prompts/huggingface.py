"""A dataset in Hugging Face's format: by its name on the hub, or a folder or file on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.data.files import Row
from perilune.data.huggingface import load_split
from perilune.errors import InvalidInputError
from perilune.recipe import HuggingFacePrompts
from services.master.prompts.files import read_prompts
from services.master.prompts.images import ImageAccess
from services.master.prompts.prompt import ListedPrompts, hold_out, keep_apart
from services.master.prompts.rows import prompts_of_rows

# Readers of text that guess the type of a column: 007 comes as 7, 1 as 1.0, a long number rounded.
GUESSING_READERS = ("csv", "json")


def open_prompts(table: HuggingFacePrompts, access: ImageAccess) -> ListedPrompts:
    """The prompts of a dataset's splits, in its order."""
    name = f"{table.dataset}[{table.split}]"
    if Path(table.dataset).is_file():
        return _open_file(table, access)
    prompts, notes = _prompts(table, table.split, access)
    if not table.heldout_split:
        return hold_out(prompts, table.num_heldout, name, notes)
    heldout, more = _prompts(table, table.heldout_split, access)
    return keep_apart(prompts, heldout, name, [*notes, *more])


def _open_file(table: HuggingFacePrompts, access: ImageAccess) -> ListedPrompts:
    if table.split != "train" or table.heldout_split:
        raise InvalidInputError(
            f"{table.dataset} is one file without splits: leave prompts.split and prompts.heldout_split out, or set "
            "prompts.source = 'file', with path and heldout_path"
        )
    prompts, notes = read_prompts([table.dataset], None, table, access)
    return hold_out(prompts, table.num_heldout, table.dataset, notes)


def _prompts(table: HuggingFacePrompts, split: str, access: ImageAccess) -> tuple[list[Prompt], list[str]]:
    name = f"{table.dataset}[{split}]"
    return prompts_of_rows(_rows(table, split, name), table, name, Path(table.dataset), access)


def _rows(table: HuggingFacePrompts, split: str, name: str) -> Iterator[tuple[str, Row]]:
    hint = "; without prompts.heldout_split the last prompts.num_heldout rows are held out"
    try:
        rows = load_split(table.dataset, table.config, split, "prompts.source = 'huggingface'", hint)
    except InvalidInputError as error:
        raise InvalidInputError(f"prompts: {error}") from error
    keys = [key for key in (table.answer, *table.labels) if _is_guessed(rows, key)]
    if keys:
        raise InvalidInputError(
            f"{name}: {keys[0]!r} is a column of numbers that were read from text, and no more as they were written"
            ": give the files by their paths, with prompts.source = 'file'"
        )
    try:
        yield from ((f"{name}, row {number}", row) for number, row in enumerate(rows))
    except (OSError, ValueError) as error:  # a cell that the library cannot decode
        raise InvalidInputError(f"prompts: cannot read {table.dataset!r}, split {split!r}: {error}") from error


def _is_guessed(rows: Any, key: str) -> bool:
    kind = rows.features.get(key)
    return rows.info.builder_name in GUESSING_READERS and getattr(kind, "dtype", "string").startswith(
        ("float", "double") if rows.info.builder_name == "json" else ("float", "double", "int")
    )
