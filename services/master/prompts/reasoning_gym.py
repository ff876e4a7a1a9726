"""Procedural problems from the reasoning-gym library: a dataset by name, sized by the recipe."""

from __future__ import annotations

import difflib
from typing import Any

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.data.rows import plain_text, text_of
from perilune.errors import InvalidInputError, MissingDependencyError
from perilune.recipe import ReasoningGymPrompts
from services.master.prompts.prompt import ListedPrompts, make_prompt, question_key


def open_prompts(table: ReasoningGymPrompts, seed: int) -> ListedPrompts:
    """Held-out problems come from the same generator after the training ones; repeats of those are left out."""
    prompts = [_prompt(row, table, f"{table.name}, problem {number}") for number, row in enumerate(_rows(table, seed))]
    train = prompts[: table.num_train]
    seen = set(map(question_key, train))
    new = {question_key(prompt): prompt for prompt in prompts[table.num_train :] if question_key(prompt) not in seen}
    heldout = list(new.values())[: table.num_heldout]
    if len(heldout) < table.num_heldout:
        raise InvalidInputError(
            f"prompts: {table.name} has only {len(heldout)} problems that are not among the {table.num_train} training "
            "ones; lower num_train or num_heldout, or choose options that make more different problems"
        )
    return ListedPrompts(train, heldout)


def _prompt(row: dict[str, Any], table: ReasoningGymPrompts, where: str) -> Prompt:
    return make_prompt(
        plain_text(row["question"], where, "question"),
        text_of(row["answer"], where, "answer"),
        template=table.template,
        system=table.system,
    )


def _rows(table: ReasoningGymPrompts, seed: int) -> list[dict[str, Any]]:
    # The library registers a hundred generators at import: only runs that use it pay for that.
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise MissingDependencyError(
            "prompts from reasoning-gym need that library where the master runs: pip install reasoning-gym"
        ) from error

    if table.name not in DATASETS:
        near = difflib.get_close_matches(table.name, DATASETS, n=3) or sorted(DATASETS)[:8]
        raise InvalidInputError(
            f"prompts.name: reasoning-gym has no dataset {table.name!r}; near are {', '.join(near)}"
        )
    size = table.num_train + 2 * table.num_heldout
    try:
        dataset = reasoning_gym.create_dataset(table.name, size=size, seed=seed, **table.options)
        return [dataset[index] for index in range(size)]
    # A hundred generators of others, with options of a user: there is no saying what they raise.
    except Exception as error:
        raise InvalidInputError(
            f"prompts.options: {table.name} of reasoning-gym does not take them: {type(error).__name__}: {error}"
        ) from error
