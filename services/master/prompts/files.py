"""One's own files: Parquet, JSON, JSON lines and CSV, by their suffixes or as the recipe says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.data.files import matching, rows_of
from perilune.errors import InvalidInputError, NotFoundError
from perilune.recipe import FilePrompts, JsonlPrompts, RowPrompts
from services.master.prompts.images import ImageAccess
from services.master.prompts.prompt import ListedPrompts, hold_out, keep_apart
from services.master.prompts.rows import prompts_of_rows


def open_prompts(table: JsonlPrompts | FilePrompts, access: ImageAccess) -> ListedPrompts:
    """The prompts of a recipe's files, in their order."""
    paths, heldout_paths, file_format = (
        ([table.path], [table.heldout_path] if table.heldout_path else [], "jsonl")
        if isinstance(table, JsonlPrompts)
        else (matching(table.path), matching(table.heldout_path or []), table.format)
    )
    name = ", ".join(paths)
    prompts, notes = read_prompts(paths, file_format, table, access)
    if not heldout_paths:
        return hold_out(prompts, table.num_heldout, name, notes)
    heldout, more = read_prompts(heldout_paths, file_format, table, access)
    return keep_apart(prompts, heldout, name, [*notes, *more])


def read_prompts(
    paths: Iterable[str], file_format: str | None, table: RowPrompts, access: ImageAccess
) -> tuple[list[Prompt], list[str]]:
    """The prompts of all files, and what is to be said of them. InvalidInputError names what is wrong, and where."""
    prompts: list[Prompt] = []
    notes: list[str] = []
    for path in paths:
        try:
            found, said = prompts_of_rows(rows_of(path, file_format), table, path, folder_of(path), access)
        except NotFoundError as error:
            raise InvalidInputError(f"prompts: {error}") from error
        prompts += found
        notes += said
    return prompts, notes


def folder_of(path: str) -> Path:
    """The folder in which relative paths of a file, or of a saved dataset, begin."""
    return Path(path) if Path(path).is_dir() else Path(path).parent
