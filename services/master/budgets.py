"""The budgets of `[reward.toggle]`: tokens that a right response to a prompt may have.

A prompt's budget is a percentile of the lengths of its right responses in the first settled batch that has any. Batches
stay as they were settled, so that it is never kept anywhere: it is the same after a restart and whenever a batch is
asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perilune.objectives.toggle import budget_of, in_budget_phase
from perilune.recipe import Recipe
from services.master.records import Graded, Group
from services.master.store import Store


async def budgets_to_settle(
    store: Store, run_id: str, recipe: Recipe, version: int, groups: Sequence[tuple[Group, Sequence[Graded]]]
) -> dict[int, int]:
    """Budgets by the prompt's index, before the batch of this version is settled: `groups` are what it will have."""
    table = recipe.reward.toggle
    if table is None or not in_budget_phase(table, version):
        return {}
    found = await store.first_right_lengths(run_id, {group.prompt_index for group, _ in groups}, version - 1)
    return budgets(right_lengths(groups) | found, table.percentile)


async def budgets_of_batch(store: Store, run_id: str, recipe: Recipe, iteration: int) -> dict[str, int]:
    """Budgets by the group's id, of a settled batch."""
    table = recipe.reward.toggle
    if table is None or not in_budget_phase(table, iteration):
        return {}
    indices = await store.prompts_of_batch(run_id, iteration)
    found = budgets(await store.first_right_lengths(run_id, set(indices.values()), iteration), table.percentile)
    return {group_id: found[index] for group_id, index in indices.items() if index in found}


def budgets(lengths: Mapping[int, Sequence[int]], percentile: float) -> dict[int, int]:
    """The budget of each prompt that has right responses, from their lengths."""
    return {index: budget_of(each, percentile) for index, each in lengths.items()}


def right_lengths(groups: Sequence[tuple[Group, Sequence[Graded]]]) -> dict[int, list[int]]:
    """Lengths of right responses by the prompt's index; prompts without one are left out."""
    found: dict[int, list[int]] = {}
    for group, samples in groups:
        for sample in samples:
            if sample.correct:
                found.setdefault(group.prompt_index, []).append(sample.num_tokens)
    return found
