"""Pictures of one's own: a folder for each label, and the question which of them a picture shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from perilune.data.files import Row
from perilune.errors import InvalidInputError
from perilune.recipe import FolderPrompts, RowPrompts
from services.master.prompts.images import ImageAccess
from services.master.prompts.prompt import ListedPrompts, hold_out
from services.master.prompts.rows import prompts_of_rows

LABEL = "label"


def open_prompts(table: FolderPrompts, access: ImageAccess) -> ListedPrompts:
    """A prompt for each file of the folder's folders, in an order that mixes the labels and that files' names decide.

    InvalidInputError: there are not two labels with pictures.
    """
    folder = Path(table.path)
    rows = RowPrompts(images=["image"], labels=[LABEL], convert_images=table.convert_images)
    prompts, notes = prompts_of_rows(_rows(folder, table), rows, table.path, folder, access)
    return hold_out(prompts, table.num_heldout, table.path, notes)


def _rows(folder: Path, table: FolderPrompts) -> Iterator[tuple[str, Row]]:
    files = _files(folder)
    labels = sorted({file.parent.name for file in files})
    if len(labels) < 2:
        raise InvalidInputError(
            f"prompts.path: {folder} has {len(labels)} folders with files, and needs one for each of two labels or more"
        )
    question = table.question.replace("{labels}", ", ".join(labels))
    for file in sorted(files, key=lambda file: blake3(str(file.relative_to(folder)).encode()).digest()):
        path, label = str(file.relative_to(folder)), file.parent.name
        yield str(file), {"question": question, "answer": label, LABEL: label, "image": path}


def _files(folder: Path) -> Sequence[Path]:
    """The files of a folder's folders, without hidden ones. InvalidInputError: it is no folder, or cannot be read."""
    try:
        labels = [each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")]
        return [file for each in labels for file in each.iterdir() if file.is_file() and not file.name.startswith(".")]
    except OSError as error:
        raise InvalidInputError(f"prompts.path: {folder} is no folder that can be read: {error.strerror}") from error
