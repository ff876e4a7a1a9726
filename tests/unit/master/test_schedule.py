"""When groups go out, how far they may go, when a batch is ready: by tables, and over whole simulated runs."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from perilune.errors import RecipeError
from perilune.recipe import Recipe, check_recipe
from services.master import schedule
from services.master.controller import length_quantile, mean_length
from services.master.schedule import Progress


def recipe(segments: str = "all", num_iterations: int = 10, **rollout: Any) -> Recipe:
    return check_recipe(
        {
            "name": "test",
            "model": {"path": "unused"},
            "prompts": {"source": "task", "name": "search"},
            "rollout": {"prompts_per_iteration": 4, "group_size": 2, **rollout},
            "reward": {"graders": [{"name": "exact"}]},
            "trainer": {"num_iterations": num_iterations, "segments": segments},
        }
    )


SYNCHRONOUS = recipe("current")
PARTIAL = recipe(budget_tokens=8, max_staleness=2)
AHEAD = recipe(asynchronous=True, max_staleness=2)


def test_admission_is_bounded_by_the_staleness() -> None:
    """(η + v + 1)·B groups in all, and none beyond the run's last batch."""
    assert [schedule.num_admitted(SYNCHRONOUS, v) for v in (0, 1, 9, 10)] == [4, 8, 40, 40]
    assert [schedule.num_admitted(PARTIAL, v) for v in (0, 1, 9)] == [4, 8, 40]
    assert [schedule.num_admitted(AHEAD, v) for v in (0, 1, 7, 8, 9)] == [12, 16, 40, 40, 40]


def test_an_iteration_draws_more_until_enough_groups_say_something() -> None:
    document = SYNCHRONOUS.model_dump()
    document["rollout"]["max_refills"] = 2
    with pytest.raises(RecipeError, match=r"max_refills .* set trainer\.drop_uniform_groups"):
        check_recipe(document)
    document["trainer"]["drop_uniform_groups"] = True
    refilling = check_recipe(document)
    assert [schedule.wants_refill(refilling, 4, useful) for useful in (0, 3, 4, 5)] == [True, True, False, False]
    assert [schedule.wants_refill(refilling, sent, 0) for sent in (0, 4, 8, 10, 12)] == [False, True, True, True, False]
    # What a refill has drawn is no part of a later iteration's draw; one that is half sent out is made whole first.
    sizes = {0: 12, 1: 4, 2: 8}
    assert schedule.num_refills(refilling, sizes) == 3
    assert schedule.num_refills(SYNCHRONOUS, sizes) == 0
    assert schedule.num_admitted(refilling, 3, num_refills=3) == 28
    assert [schedule.num_refills(refilling, sizes | {3: sent}) for sent in (0, 3, 4, 7, 8)] == [3, 3, 3, 3, 4]
    document["rollout"] |= {"asynchronous": True, "max_staleness": 1}
    with pytest.raises(RecipeError, match=r"leave one of them out"):
        check_recipe(document)


def test_a_budget_ends_where_the_group_is_due() -> None:
    assert [schedule.budget_tokens(PARTIAL, 3, v) for v in (3, 4, 5)] == [8, 8, 0]
    current = recipe("current", budget_tokens=8)
    assert [schedule.budget_tokens(current, 3, v) for v in (3, 6, 8, 9)] == [8, 8, 8, 0]  # the last leaves nothing


def test_a_batch_waits_for_what_is_due_and_for_nothing_else() -> None:
    assert schedule.is_ready(SYNCHRONOUS, Progress(num_complete=4))
    assert not schedule.is_ready(SYNCHRONOUS, Progress(num_running=1, num_complete=3))
    assert not schedule.is_ready(SYNCHRONOUS, Progress(num_evaluating=1, num_complete=4))
    assert schedule.is_ready(PARTIAL, Progress(num_partial=5, num_complete=1))
    assert not schedule.is_ready(PARTIAL, Progress(num_partial=5, num_complete=0))  # another budget, then
    assert not schedule.is_ready(PARTIAL, Progress(num_partial=5, num_due=1, num_complete=3))
    assert schedule.is_ready(AHEAD, Progress(num_running=8, num_complete=4))
    assert not schedule.is_ready(AHEAD, Progress(num_running=8, num_complete=3))
    assert not schedule.is_ready(AHEAD, Progress(num_running=8, num_complete=4, num_due=1))
    assert schedule.is_ready(AHEAD, Progress())


@pytest.mark.parametrize("staleness", [1, 2, 5])
@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_whatever_the_lengths_nothing_grows_too_old_and_nothing_is_left(staleness: int, is_asynchronous: bool) -> None:
    """A run in miniature: each group needs some time, a few very much; time passes only while the batch waits."""
    table = recipe(num_iterations=30, asynchronous=is_asynchronous, max_staleness=staleness, budget_tokens=5)
    rng, left, born, batches = Random(staleness), dict[int, int](), dict[int, int](), dict[int, int]()
    for version in range(30):
        for group in range(len(born), schedule.num_admitted(table, version)):
            born[group], left[group] = version, rng.choice([1, 2, 3, 60])
        due, spent = schedule.due_version(table, version), dict.fromkeys(left, 0)
        while True:
            open_groups = [group for group in left if left[group] > 0]
            budgets = {group: schedule.budget_tokens(table, born[group], version) for group in open_groups}
            running = [group for group in open_groups if not budgets[group] or spent[group] < budgets[group]]
            complete = sorted(group for group in left if left[group] <= 0 and group not in batches)
            progress = Progress(
                num_running=len(running),
                num_partial=len(open_groups) - len(running),
                num_due=sum(born[group] <= due for group in open_groups),
                num_complete=len(complete),
            )
            if schedule.is_ready(table, progress):
                break
            if not running:
                spent = dict.fromkeys(left, 0)
            for group in running:
                left[group] -= 1
                spent[group] += 1
        for group in complete[: schedule.batch_size(table, version, [born[group] for group in complete])]:
            assert not schedule.is_stale(table, born[group], version)
            batches[group] = version
    assert len(batches) == len(born) == 30 * 4


def test_recipes_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"rollout.asynchronous needs rollout.max_staleness"):
        recipe(asynchronous=True)
    with pytest.raises(RecipeError, match=r"rollout.max_staleness = 0 forbids them"):
        recipe("all", budget_tokens=8)


def test_lengths_are_summed_up() -> None:
    lengths = {10: 8, 100: 1, 1000: 1}
    assert mean_length(lengths) == 118
    assert [length_quantile(lengths, share) for share in (0.5, 0.8, 0.9, 1.0)] == [10, 10, 100, 1000]
