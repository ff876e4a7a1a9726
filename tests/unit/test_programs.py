"""The task of programs: what is worked out is right, guesses are not, and every trace is a program."""

from __future__ import annotations

import json
from random import Random

from perilune.tasks import programs


def test_worked_out_programs_pass_the_hidden_tests_and_guesses_do_not() -> None:
    worked_out = guessed = 0
    for index in range(400):
        problem = programs.problem(0, index)
        tests = json.loads(problem.answer)
        assert set(programs.question(problem).split()) <= set(programs.VOCABULARY)
        for care in (0.0, 1.0):
            trace = programs.trace(problem, Random(index), care=care)
            assert set(trace.split()) <= set(programs.VOCABULARY)
            names: dict[str, object] = {}
            exec(trace.partition("</think> ")[2], names)
            passes = [names["f"](x) for (x,) in tests["inputs"]] == tests["outputs"]  # type: ignore[operator]
            worked_out += passes and care == 1
            guessed += passes and care == 0
    assert worked_out == 400
    assert guessed < 20


def test_a_question_and_its_working() -> None:
    problem = programs.Problem(slope=3, offset=1, shown=(2, 5))
    assert programs.question(problem) == "f maps 2 to 7 and 5 to 16 . write f"
    assert programs.trace(problem, Random(0), care=1.0) == (
        "<think> 16 - 7 = 9 , 5 - 2 = 3 , 9 / 3 = 3 , 3 * 2 = 6 , 7 - 6 = 1 </think> def f ( x ) : return 3 * x + 1"
    )


def test_held_out_problems_are_others() -> None:
    train = {programs.problem(0, index) for index in range(200)}
    held_out = {programs.problem(1, index, held_out=True) for index in range(200)}
    assert not train & held_out
