"""One's own prompts: a JSON object a line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError
from perilune.recipe import HuggingFacePrompts, JsonlPrompts
from services.master.prompts.prompt import ListedPrompts, make_prompt


def open_prompts(table: JsonlPrompts, seed: int) -> ListedPrompts:
    prompts = _read(table.path, table)
    if table.heldout_path:
        return ListedPrompts(prompts, _read(table.heldout_path, table))
    return hold_out(prompts, table.num_heldout, table.path)


def hold_out(prompts: list[Prompt], num_heldout: int, name: str) -> ListedPrompts:
    """The last prompts are held out, and what equals one of them is no training prompt."""
    heldout = prompts[len(prompts) - num_heldout :]
    ids = {prompt.id for prompt in heldout}
    train = [prompt for prompt in prompts[: len(prompts) - num_heldout] if prompt.id not in ids]
    if not train:
        raise InvalidInputError(
            f"{name} has {len(prompts)} prompts, of which {num_heldout} are to be held out: none are left to train on; "
            "lower prompts.num_heldout"
        )
    return ListedPrompts(train, heldout)


def prompt_of_row(row: Mapping[str, Any], table: JsonlPrompts | HuggingFacePrompts, where: str) -> Prompt:
    """One row as a prompt. InvalidInputError names the row and the key that is wrong."""
    for key in (table.question, table.answer, *table.labels):
        if key not in row:
            near = difflib.get_close_matches(key, list(row), n=1) or sorted(row)
            raise InvalidInputError(
                f"{where} has no key {key!r}; it has {', '.join(map(repr, near))}: set prompts.question "
                "and prompts.answer to the keys of the question and of the reference answer"
            )
    question = row[table.question]
    if not isinstance(question, str | list) or not question:
        raise InvalidInputError(f"{where}: {table.question!r} is neither text nor a list of messages: {question!r:.60}")
    try:
        return make_prompt(
            question,
            str(row[table.answer]),
            template=table.template,
            system=table.system,
            labels={key: str(row[key]) for key in table.labels},
        )
    except (KeyError, TypeError) as error:
        raise InvalidInputError(f"{where}: every message of {table.question!r} needs a role and a content") from error


def _read(path: str, table: JsonlPrompts) -> list[Prompt]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"prompts: cannot read {path}: {error}") from error
    prompts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidInputError(f"{path}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidInputError(f"{path}, line {number} is no JSON object: {line:.60}")
        prompts.append(prompt_of_row(row, table, f"{path}, line {number}"))
    if not prompts:
        raise InvalidInputError(f"{path} has no prompts")
    return prompts
