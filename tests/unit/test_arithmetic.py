"""The task for the calculator: right traces are right, guesses are not, and every word is known."""

from __future__ import annotations

from random import Random

from perilune.tasks import arithmetic


def test_traces_that_ask_to_the_end_are_right_and_most_others_are_not() -> None:
    asked = guessed = 0
    for index in range(400):
        problem = arithmetic.problem(0, index)
        assert set(arithmetic.question(problem).split()) <= set(arithmetic.VOCABULARY)
        for calls in (0.0, 1.0):
            trace = arithmetic.trace(problem, Random(index), calls=calls)
            assert set(trace.split()) <= set(arithmetic.VOCABULARY)
            right = trace.rpartition("answer: ")[2] == problem.answer
            asked += right and calls == 1
            guessed += right and calls == 0
    assert asked == 400
    assert guessed < 40


def test_a_trace_reads_as_the_calculator_answers() -> None:
    problem = arithmetic.Problem(7, 8, 6, 9)
    assert arithmetic.question(problem) == "what is 7 * 8 + 6 * 9 ?"
    assert arithmetic.trace(problem, Random(0), calls=1.0) == (
        "calc 7 * 8 = 56 calc 6 * 9 = 54 calc 56 + 54 = 110 answer: 110"
    )


def test_held_out_problems_are_others() -> None:
    train = {arithmetic.problem(0, index) for index in range(200)}
    held_out = {arithmetic.problem(1, index, held_out=True) for index in range(200)}
    assert not train & held_out
