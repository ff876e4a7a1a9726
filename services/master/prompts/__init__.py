"""Prompt sets (k1.5 §2.1): training prompts and held-out ones, by index. A source is one file and one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.recipe import (
    FilePrompts,
    HuggingFacePrompts,
    JsonlPrompts,
    PromptsTable,
    ReasoningGymPrompts,
    TaskPrompts,
)
from services.master.prompts import files, huggingface, reasoning_gym, task


class PromptSet(Protocol):
    """The same index is the same prompt for as long as the run lives. Training and held-out prompts never meet."""

    @property
    def num_train(self) -> int: ...

    @property
    def num_heldout(self) -> int: ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader should know of how the set was made: rows that were left out, and why."""
        ...

    def train(self, index: int) -> Prompt: ...

    def heldout(self, index: int) -> Prompt: ...


SOURCES: dict[type, Callable[[Any, int], PromptSet]] = {
    TaskPrompts: task.open_prompts,
    ReasoningGymPrompts: reasoning_gym.open_prompts,
    JsonlPrompts: files.open_prompts,
    FilePrompts: files.open_prompts,
    HuggingFacePrompts: huggingface.open_prompts,
}


def open_prompts(table: PromptsTable, seed: int) -> PromptSet:
    """Opens a recipe's prompt set. InvalidInputError says what is wrong with the data and where."""
    return SOURCES[type(table)](table, seed)
