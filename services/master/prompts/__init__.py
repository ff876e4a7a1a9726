"""Prompt sets (k1.5 §2.1): training prompts and held-out ones, by index. A source is one file and one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from perilune.api.master.v1.master_pb2 import PromptSummary
from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import StateError
from perilune.recipe import (
    FilePrompts,
    FolderPrompts,
    HuggingFacePrompts,
    JsonlPrompts,
    PromptsTable,
    ReasoningGymPrompts,
    TaskPrompts,
)
from services.master.prompts import files, folder, huggingface, reasoning_gym, task
from services.master.prompts.images import LOOKED_AT, ImageAccess
from services.master.prompts.rendered import open_rendered

MAX_NOTES = 20  # that are kept: a set may have thousands of files


class PromptSet(Protocol):
    """The same index is the same prompt for as long as the run lives. Training and held-out prompts never meet."""

    @property
    def num_train(self) -> int:
        """Prompts to train on."""

    @property
    def num_heldout(self) -> int:
        """Prompts to evaluate on."""

    @property
    def notes(self) -> Sequence[str]:
        """Returns what a reader should know of how the set was made: rows that were left out, and why."""
        ...

    @property
    def digest(self) -> str:
        """Differs where any prompt does; an endless set's is made of some of them."""
        ...

    def train(self, index: int) -> Prompt:
        """The training prompt with this index."""

    def heldout(self, index: int) -> Prompt:
        """The held-out prompt with this index."""

    def labels(self, index: int) -> Mapping[str, str]:
        """The labels of the training prompt with this index, which are there sooner than the prompt."""
        ...

    def drawn_images(self, index: int, *, held_out: bool) -> Sequence[bytes]:
        """The encoded images of a prompt that the set draws itself, to be put into the blob store before it is sent
        out. Those of files lie there from the start.
        """
        ...


SOURCES: dict[type, Callable[[Any, int], PromptSet]] = {
    TaskPrompts: task.open_prompts,
    ReasoningGymPrompts: reasoning_gym.open_prompts,
}
ROW_SOURCES: dict[type, Callable[[Any, ImageAccess], PromptSet]] = {  # whose rows may have images; no seed matters
    JsonlPrompts: files.open_prompts,
    FilePrompts: files.open_prompts,
    HuggingFacePrompts: huggingface.open_prompts,
    FolderPrompts: folder.open_prompts,
}


def open_prompts(table: PromptsTable, seed: int, access: ImageAccess = LOOKED_AT) -> PromptSet:
    """Opens a recipe's prompt set, and keeps the images of its rows. InvalidInputError says what is wrong with the data
    and where; UnavailableError that the store of images does not answer.
    """
    if type(table) in ROW_SOURCES:
        prompts = ROW_SOURCES[type(table)](table, access)
    else:
        prompts = SOURCES[type(table)](table, seed)
    return open_rendered(prompts, table.render) if table.render else prompts


def summary_of(prompts: PromptSet) -> PromptSummary:
    """Returns what is kept of a set with its run."""
    notes = list(prompts.notes[:MAX_NOTES])
    if len(prompts.notes) > MAX_NOTES:
        notes.append(f"and {len(prompts.notes) - MAX_NOTES} more such notes")
    return PromptSummary(
        num_train=prompts.num_train, num_heldout=prompts.num_heldout, digest=prompts.digest, notes=notes
    )


def check_unchanged(table: PromptsTable, before: PromptSummary, now: PromptSummary) -> None:
    """Checks that an index still means the same prompt. StateError names what has changed since the submission."""
    if before.digest != now.digest:
        raise StateError(
            f"{_origin(table)} has changed since the run was submitted: was {_in_words(before)}, now {_in_words(now)}. "
            "Put it back as it was, or submit a new run: its model.path may be this run's model"
        )


def _origin(table: PromptsTable) -> str:
    match table:
        case JsonlPrompts():
            return f"the prompt file {' or '.join(filter(None, [table.path, table.heldout_path]))}"
        case FilePrompts():
            return f"the prompt file {' or '.join([*table.path, *(table.heldout_path or [])])}"
        case FolderPrompts():
            return f"the folder {table.path}"
        case HuggingFacePrompts():
            return f"the data set {table.dataset}"
        case ReasoningGymPrompts():
            return f"{table.name} of reasoning-gym, the library or its options,"
        case TaskPrompts():
            return f"what the task {table.name} makes"


def _in_words(summary: PromptSummary) -> str:
    return f"{summary.num_train} rows and {summary.num_heldout} held out, digest {summary.digest}"
