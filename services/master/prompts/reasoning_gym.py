"""Procedural problems from the reasoning-gym library: a dataset by name, sized by the recipe."""

from __future__ import annotations

import difflib

from perilune.errors import InvalidInputError, MissingDependencyError
from perilune.recipe import ReasoningGymPrompts
from services.master.prompts.prompt import ListedPrompts, make_prompt


def open_prompts(table: ReasoningGymPrompts, seed: int) -> ListedPrompts:
    """Held-out problems come from the same generator after the training ones; repeats of those are left out."""
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
        rows = [dataset[index] for index in range(size)]
    except (TypeError, AssertionError, ValueError) as error:
        raise InvalidInputError(
            f"prompts.options: {table.name} of reasoning-gym does not take them: {error}"
        ) from error
    prompts = [
        make_prompt(row["question"], str(row["answer"]), template=table.template, system=table.system) for row in rows
    ]
    train = prompts[: table.num_train]
    seen = {prompt.id for prompt in train}
    heldout = list({p.id: p for p in prompts[table.num_train :] if p.id not in seen}.values())[: table.num_heldout]
    if len(heldout) < table.num_heldout:
        raise InvalidInputError(
            f"prompts: {table.name} has only {len(heldout)} problems that are not among the {table.num_train} training "
            "ones; lower num_train or num_heldout, or choose options that make more different problems"
        )
    return ListedPrompts(train, heldout)
