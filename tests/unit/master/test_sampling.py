from collections import Counter
from random import Random

import pytest

from perilune.recipe import SamplingTable
from services.master.sampling import draw, prioritized, uniform


def never(index: int) -> float:
    raise AssertionError("no difficulty is asked for")


def test_uniform_draws_every_prompt_once_an_epoch() -> None:
    first = uniform(0, 7, 10, seed=1) + uniform(7, 3, 10, seed=1)
    assert sorted(first) == list(range(10))
    assert sorted(uniform(10, 10, 10, seed=1)) == list(range(10))
    assert uniform(10, 10, 10, seed=1) != first


def test_uniform_draws_cross_the_end_of_an_epoch() -> None:
    assert uniform(8, 4, 10, seed=3) == uniform(8, 2, 10, seed=3) + uniform(10, 2, 10, seed=3)


def test_a_resumed_run_draws_what_it_would_have_drawn() -> None:
    table = SamplingTable(strategy="prioritized")
    once = draw(table, 5, 4, 20, seed=2, success_rates={3: 0.5}, difficulty=never)
    assert once == draw(table, 5, 4, 20, seed=2, success_rates={3: 0.5}, difficulty=never)
    assert once != draw(table, 6, 4, 20, seed=2, success_rates={3: 0.5}, difficulty=never)


def test_prioritized_draws_in_proportion_to_the_failure_rate() -> None:
    """One draw of weights 3:1 takes the first three times in four; 4,000 draws have a deviation of 27."""
    counts = Counter(prioritized([0.75, 0.25], 1, Random(i))[0] for i in range(4000))
    assert 3000 - 110 < counts[0] < 3000 + 110


def test_prioritized_takes_solved_prompts_only_when_no_other_is_left() -> None:
    drawn = prioritized([0.0, 0.5, 0.0, 0.1], 3, Random(0))
    assert set(drawn[:2]) == {1, 3}
    assert len(set(drawn)) == 3


def test_prioritized_fills_an_iteration_larger_than_the_set() -> None:
    assert Counter(prioritized([1.0, 1.0], 4, Random(0))) == {0: 2, 1: 2}


@pytest.mark.parametrize(("iteration", "expected"), [(1, set(range(10))), (2, {7, 8, 9})])
def test_a_curriculum_narrows_to_hard_prompts_after_its_warmup(iteration: int, expected: set[int]) -> None:
    table = SamplingTable(strategy="curriculum", warmup_iterations=2, min_difficulty=0.7)
    drawn = draw(table, iteration, 30, 10, seed=0, success_rates={}, difficulty=lambda index: index / 10)
    assert set(drawn) == expected
