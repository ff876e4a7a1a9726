"""Sums of two-digit numbers: a task like any other, whose held-out problems are never trained on."""

from __future__ import annotations

from perilune.tasks import find_task, large_sums


def test_problems_are_of_two_digits_and_held_out_ones_stay_out() -> None:
    trained = [large_sums.problem(0, index) for index in range(200)]
    held_out = [large_sums.problem(1, index, held_out=True) for index in range(200)]
    assert {len(str(number)) for each in trained + held_out for number in (each.a, each.b)} == {2}
    assert {frozenset((each.a, each.b)) for each in trained}.isdisjoint(
        frozenset((each.a, each.b)) for each in held_out
    )
    assert large_sums.problem(0, 7) == trained[7]


def test_every_word_is_in_the_vocabulary() -> None:
    task = find_task("large_sums")
    for index in range(50):
        problem = task.problem(3, index)
        words = [*task.question(problem).replace("?", " ?").split(), problem.answer]
        assert set(words) <= set(task.VOCABULARY)
