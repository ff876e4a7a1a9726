"""A dataset in Hugging Face's format: by its name on the hub, or a folder or file on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError, MissingDependencyError
from perilune.recipe import HuggingFacePrompts
from services.master.prompts.jsonl import hold_out, prompt_of_row
from services.master.prompts.prompt import ListedPrompts


def open_prompts(table: HuggingFacePrompts, seed: int) -> ListedPrompts:
    prompts = _prompts(table, table.split)
    if table.heldout_split:
        return ListedPrompts(prompts, _prompts(table, table.heldout_split))
    return hold_out(prompts, table.num_heldout, table.dataset)


def _prompts(table: HuggingFacePrompts, split: str) -> list[Prompt]:
    rows = _load(table, split)
    return [prompt_of_row(row, table, f"{table.dataset}[{split}], row {i}") for i, row in enumerate(rows)]


def _load(table: HuggingFacePrompts, split: str) -> Any:
    """The rows of one split: a folder that `save_to_disk` wrote, or whatever `load_dataset` understands."""
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("prompts.source = 'huggingface' needs `pip install datasets`") from error
    saved = Path(table.dataset)
    try:
        if (saved / "dataset_dict.json").exists():
            return datasets.load_from_disk(table.dataset)[split]
        if (saved / "state.json").exists():
            return datasets.load_from_disk(table.dataset)
        return datasets.load_dataset(table.dataset, table.config, split=split)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInputError(f"prompts: cannot load {table.dataset!r}, split {split!r}: {error}") from error
