"""Toggle by hand: phases, budgets, which rewards are withheld, its figures, and what the master makes of its ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perilune.api.master.v1.master_pb2 import Version
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_TRAIN, PolicyVersion
from perilune.errors import RecipeError
from perilune.objectives.shaping import Response, shaped_rewards
from perilune.objectives.toggle import budget_of, in_budget_phase, toggle_metrics
from perilune.recipe import Recipe, RewardTable, ToggleTable, check_recipe
from services.master.budgets import budgets_of_batch, budgets_to_settle
from services.master.controller import is_trainable
from services.master.records import Graded, Group, Scored
from services.master.store import Store
from services.master.tables import SampleState


def table(**keys: Any) -> RewardTable:
    return RewardTable.model_validate(
        {"graders": [{"name": "exact"}], "toggle": {"phase_iterations": 2, "min_mean_score": 0.5} | keys}
    )


def group(*responses: tuple[float, int], budget: int | None = 20) -> list[Response]:
    return [Response(score, length, score == 1, False, budget) for score, length in responses]


def test_phases_take_turns_and_the_budget_is_first() -> None:
    toggle = ToggleTable(phase_iterations=2)
    assert [in_budget_phase(toggle, iteration) for iteration in range(7)] == [
        True,
        True,
        False,
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("percentile", "expected"), [(1, 10), (20, 10), (21, 12), (50, 15), (60, 15), (61, 30), (80, 30), (100, 99)]
)
def test_a_budget_is_a_percentile_of_lengths(percentile: float, expected: int) -> None:
    assert budget_of([15, 99, 10, 30, 12], percentile) == expected


def test_a_percentile_is_not_a_rounding_error_too_long() -> None:
    assert budget_of(range(1, 101), 7) == 7  # 7 / 100 * 100 is 7.000000000000001


def test_over_the_budget_a_reward_does_not_count_while_the_phase_lasts() -> None:
    responses = group((1.0, 20), (1.0, 21), (0.0, 5), (0.5, 40))  # the mean is 0.625
    assert shaped_rewards(responses, table(), 1) == [1.0, 0.0, 0.0, 0.0]
    assert shaped_rewards(responses, table(), 2) == [1.0, 1.0, 0.0, 0.5]


def test_a_group_below_the_threshold_is_held_to_no_budget() -> None:
    responses = group((1.0, 90), (0.0, 5), (0.0, 5))
    assert shaped_rewards(responses, table(), 0) == [1.0, 0.0, 0.0]
    assert shaped_rewards(responses, table(min_mean_score=1 / 3), 0) == [0.0, 0.0, 0.0]  # < and not ≤


def test_without_a_budget_every_reward_counts() -> None:
    assert shaped_rewards(group((1.0, 90), (1.0, 5), budget=None), table(), 0) == [1.0, 1.0]


def test_a_penalty_counts_at_any_length() -> None:
    assert shaped_rewards(group((1.0, 5), (1.0, 9), (-0.5, 90)), table(), 0) == [1.0, 1.0, -0.5]


def test_it_goes_with_the_length_reward() -> None:
    """λ is 0.5 for the shortest and -0.5 for the longest, and is added whether or not the score counts."""
    both = RewardTable.model_validate(table().model_dump() | {"length": {"weight": 0.2}})
    assert shaped_rewards(group((1.0, 10), (1.0, 30)), both, 0) == pytest.approx([1.1, -0.1])


def test_its_figures() -> None:
    groups = [group((1.0, 20), (1.0, 21), (0.0, 50)), group((1.0, 9), (1.0, 9), budget=None), group((1.0, 9), budget=8)]
    toggle = table().toggle
    assert toggle is not None
    assert toggle_metrics(groups, toggle, 0) == {
        "toggle_budget_phase": 1.0,
        "toggle_withheld": pytest.approx(2 / 5),
        "toggle_no_budget": pytest.approx(1 / 3),
        "toggle_budget": 14.0,
    }
    assert toggle_metrics(groups, toggle, 2) == {"toggle_budget_phase": 0.0}
    assert toggle_metrics([], toggle, 0) == {"toggle_budget_phase": 1.0}


def recipe(**toggle: Any) -> Recipe:
    return check_recipe(
        {
            "name": "x",
            "model": {"path": "unused"},
            "prompts": {"source": "task", "name": "search"},
            "reward": {"graders": [{"name": "exact"}], "toggle": {"phase_iterations": 1, **toggle}},
            "trainer": {"num_iterations": 9, "drop_uniform_groups": True},
        }
    )


@pytest.mark.parametrize(
    ("toggle", "reason"),
    [
        ({"phase_iterations": 0}, "phase_iterations"),
        ({"percentile": 0}, "percentile"),
        ({"percentile": 101}, "percentile"),
        ({"budget": 5}, "budget"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(toggle: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError, match=rf"reward\.toggle\.{reason}"):
        recipe(**toggle)


def test_a_group_that_loses_its_difference_is_left_out() -> None:
    """The master judges by the same rewards as the trainer: a right response over the budget is worth a wrong one."""
    samples = [Graded(1.0, True, 30, 0), Graded(0.0, False, 5, 0)]
    assert is_trainable(samples, recipe(), 0, 30)
    assert not is_trainable(samples, recipe(), 0, 29)
    assert is_trainable(samples, recipe(), 1, 29)


async def settle(store: Store, iteration: int, lengths: dict[int, list[int | None]]) -> dict[int, int]:
    """A batch: by the prompt's index, a length of each right sample and None of each wrong one. Gives its budgets."""
    version = Version(policy=PolicyVersion(number=iteration, digest=f"{iteration}"))
    epoch = await store.open_lease("run", "t") or 0
    await store.commit_version("run", epoch, version, "", {})
    for index, samples in lengths.items():
        name = f"{iteration}.{index}"
        await store.add_groups([Group(name, "run", iteration, PURPOSE_TRAIN, "", index, index, len(samples))])
        await store.record_scores(
            [
                Scored(
                    name,
                    place,
                    SampleState.SCORED,
                    b"",
                    length or 7,
                    value=float(length is not None),
                    correct=length is not None,
                )
                for place, length in enumerate(samples)
            ]
        )
    complete = await store.complete_groups("run")
    found = await budgets_to_settle(store, "run", recipe(), iteration, complete)
    await store.close_batch("run", iteration, {each.id: None for each, _ in complete})
    served = await budgets_of_batch(store, "run", recipe(), iteration)
    assert served == {f"{iteration}.{index}": budget for index, budget in found.items()}
    return found


async def test_a_prompts_first_right_responses_are_its_budget_for_ever(tmp_path: Path) -> None:
    """Prompt 0 is right at once; 1 only in iteration 1, whose phase has no budgets; 2 in iteration 2; 3 never."""
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    async with Store.open(url) as store:
        await store.add_run("run", "{}")
        assert await settle(store, 0, {0: [30, 10, 20, None], 1: [None, None], 3: [None]}) == {0: 20}
        assert await settle(store, 1, {0: [5, 5], 1: [40, 41]}) == {}
        assert await settle(store, 2, {0: [3], 1: [9, 9], 2: [None, 8], 3: [None]}) == {0: 20, 1: 40, 2: 8}
    async with Store.open(url) as store:  # as after a restart
        assert await settle(store, 3, {2: [1]}) == {}
        assert await settle(store, 4, {0: [1], 1: [1], 2: [1], 3: [6]}) == {0: 20, 1: 40, 2: 8, 3: 6}
        # What was served is served again, whatever came later.
        assert await budgets_of_batch(store, "run", recipe(), 0) == {"0.0": 20}
        assert await budgets_of_batch(store, "run", recipe(), 2) == {"2.0": 20, "2.1": 40, "2.2": 8}
