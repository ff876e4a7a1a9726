from collections import Counter
from random import Random

import pytest

from perilune.errors import InvalidInputError, StateError
from perilune.recipe import SamplingTable
from services.master.prompts.prompt import ListedPrompts, make_prompt
from services.master.sampling import check_sampling, draw, prioritized, uniform


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


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["0.2", "0.6"], "min_difficulty = 0.7: no training prompt is so hard; the hardest has level 0.6"),
        (["0.9", "hard"], r"training prompt 1 \('question 1'\) has 'hard' under 'level'"),
        (["nan"], "training prompt 0 .* has 'nan' under 'level'"),
        (["inf"], "training prompt 0 .* has 'inf' under 'level'"),
        ([None], "training prompt 0 .* has '' under 'level'"),
    ],
)
def test_a_curriculum_that_cannot_begin_is_refused_before_the_run(levels: list[str | None], expected: str) -> None:
    train = [
        make_prompt(f"question {number}", "1", labels={} if level is None else {"level": level})
        for number, level in enumerate(levels)
    ]
    table = SamplingTable(strategy="curriculum", difficulty_label="level", min_difficulty=0.7, warmup_iterations=9)
    with pytest.raises(InvalidInputError, match=expected):
        check_sampling(table, ListedPrompts(train, []))


def test_a_curriculum_with_one_hard_prompt_can_begin() -> None:
    train = [make_prompt(level, "1", labels={"level": level}) for level in ("0.1", "0.7")]
    table = SamplingTable(strategy="curriculum", difficulty_label="level", min_difficulty=0.7)
    check_sampling(table, ListedPrompts(train, []))


def test_prompts_that_are_given_up_are_replaced_and_the_others_keep_their_places() -> None:
    table = SamplingTable()
    whole = [draw(table, number, 4, 12, 0, {}, never) for number in range(3)]
    drawn = [draw(table, number, 4, 12, 0, {}, never, dead_groups={3: 2, 7: 5, 8: 1}) for number in range(3)]
    for before, after in zip(whole, drawn, strict=True):
        assert [index for index in before if index not in (3, 7)] == [
            index for place, index in enumerate(after) if before[place] not in (3, 7)
        ]
        assert len(set(after)) == 4
        assert not {3, 7} & set(after)
    assert any(8 in part for part in drawn)  # once may have been a fault of others


def test_prioritized_takes_what_was_given_up_last() -> None:
    table = SamplingTable(strategy="prioritized")
    rates = dict.fromkeys(range(10), 0.9)
    for number in range(20):
        drawn = draw(table, number, 4, 16, 0, rates, never, dead_groups=dict.fromkeys(range(10, 16), 1))
        assert set(drawn) <= set(range(10))
    assert set(draw(table, 0, 4, 3, 0, {}, never, dead_groups={0: 2, 1: 1})) == {1, 2}


@pytest.mark.parametrize("strategy", ["uniform", "prioritized", "curriculum"])
def test_a_set_of_which_nothing_can_be_sampled_ends_the_run(strategy: str) -> None:
    table = SamplingTable(strategy=strategy)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="none of the 2 prompts"):
        draw(table, 0, 4, 2, 0, {}, difficulty=lambda index: 1.0, dead_groups={0: 2, 1: 2})
