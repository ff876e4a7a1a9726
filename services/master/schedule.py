"""Says when samples are sent out, how far each may go, and when a batch is ready: pure decisions of the controller.

Time is counted in versions: what the master does from the commit of version v to that of v + 1 belongs to iteration v,
and batch v is what version v + 1 is trained on. A group is dispatched at one version and trained on, whole, at the same
or a later one: the k samples of a prompt are compared with each other (k1.5 §2.3.1), so one that is unfinished holds
back its group, and only its group. B is the number of groups an iteration draws, η is `rollout.max_staleness`.

- Synchronous (the paper): iteration v sends out B groups, and batch v is every group that is complete once all samples
  have ended or spent their budgets.
- Asynchronous: groups are admitted up to (η + v + 1)·B - (accepted + running), and a batch is the B oldest that are
  complete, and whatever else is due.

In both, where old tokens enter the loss, a group of version v - η is written to its end before batch v is settled:
nothing grows too old, nothing is dropped for its length, and the length of what is trained on is that of what is
generated. Every version that wrote a token is at least the one its group was dispatched at, so this bounds the
staleness of tokens, whatever was restarted meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perilune.recipe import Recipe


@dataclass(frozen=True)
class Progress:
    """Describes what of a run's groups is under way at some moment."""

    num_evaluating: int = 0  # held-out samples of this iteration that are awaited
    num_running: int = 0  # training samples that are awaited
    num_partial: int = 0  # unfinished training samples that are saved and on no queue
    num_due: int = 0  # training samples, running or partial, that this iteration's batch has to wait for
    num_complete: int = 0  # groups with no such sample, in no batch yet


def num_admitted(recipe: Recipe, version: int, num_refills: int = 0) -> int:
    """Groups that may have been sent out in all by the time of this version: the admission rule.

    Args:
        num_refills: draws that iterations so far have made beside their own, as `num_refills` counts them.
    """
    ahead = recipe.rollout.max_staleness if recipe.rollout.asynchronous else 0
    num_draws = min(ahead + version + 1, recipe.trainer.num_iterations) + num_refills
    return num_draws * recipe.rollout.prompts_per_iteration


def num_refills(recipe: Recipe, sizes: Mapping[int, int]) -> int:
    """Whole draws that were made in place of groups that are left out.

    Args:
        sizes: how many groups were sent out at each version.
    """
    if not recipe.rollout.max_refills:
        return 0
    return sum(max(0, size // recipe.rollout.prompts_per_iteration - 1) for size in sizes.values())


def wants_refill(recipe: Recipe, num_sent: int, num_useful: int) -> bool:
    """Tests whether an iteration draws more prompts, once all that it has sent out is settled.

    Args:
        num_sent: groups that were sent out at this version.
        num_useful: of the groups that are complete, those that would be trained on.
    """
    size = recipe.rollout.prompts_per_iteration
    return num_useful < size and 0 < num_sent < (1 + recipe.rollout.max_refills) * size


def due_version(recipe: Recipe, version: int) -> int:
    """Groups dispatched at this version or before belong to the batch of `version` at the latest; -1: none.

    The last batch leaves nothing behind. Where only current tokens are trained on, a group may be as old as it likes.
    """
    if version >= recipe.trainer.num_iterations - 1:
        return version
    return -1 if recipe.trainer.segments == "current" else version - recipe.rollout.max_staleness


def budget_tokens(recipe: Recipe, dispatched_at: int, version: int) -> int:
    """Tokens that a sample may get in this iteration; 0: as many as it needs."""
    return 0 if dispatched_at <= due_version(recipe, version) else recipe.rollout.budget_tokens or 0


def is_stale(recipe: Recipe, dispatched_at: int, version: int) -> bool:
    """Tests whether a group is too old to be trained on at this version. `due_version` sees to it that none ever is."""
    return recipe.trainer.segments != "current" and version - dispatched_at > recipe.rollout.max_staleness


def is_ready(recipe: Recipe, progress: Progress) -> bool:
    """Tests whether the batch can be settled. With nothing left to wait for it always is."""
    if progress.num_evaluating or progress.num_due:
        return False
    if not progress.num_running and not progress.num_partial:
        return True
    if recipe.rollout.asynchronous:
        return progress.num_complete >= recipe.rollout.prompts_per_iteration
    return not progress.num_running and progress.num_complete > 0


def batch_size(recipe: Recipe, version: int, ages: Sequence[int]) -> int:
    """Returns how many of the complete groups are the batch of this version.

    Args:
        ages: the version that each was dispatched at, the oldest first.

    An asynchronous batch is more than B groups where more are due: slow ones that newer ones were taken before.
    """
    if not recipe.rollout.asynchronous:
        return len(ages)
    due = due_version(recipe, version)
    return min(len(ages), max(recipe.rollout.prompts_per_iteration, sum(age <= due for age in ages)))
