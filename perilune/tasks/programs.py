"""Programs from examples: which function maps these numbers to those? Code is the answer, and running it is the test.

    question   f maps 2 to 7 and 5 to 16 . write f
    response   <think> 16 - 7 = 9 , 5 - 2 = 3 , 9 / 3 = 3 , 3 * 2 = 6 , 7 - 6 = 1 </think>
               def f ( x ) : return 3 * x + 1

The reference is a row of the APPS format, whose cases the question does not show: a program that only fits the
examples fails them. Warm-up traces often guess instead of working it out, as a model does that knows the language and
is in a hurry; a guess is nearly always wrong, so that under RL only the working pays.

Texts are words separated by single spaces, every one of them in `VOCABULARY`; joined by spaces they are Python.
"""

import json
import zlib
from dataclasses import dataclass
from random import Random

MAX_SLOPE, MAX_OFFSET, MAX_ARGUMENT = 9, 9, 9
HIDDEN_ARGUMENTS = (11, 40)
"""Says what the function is called with; two points determine it."""
HELD_OUT_IN = 5
"""One problem in five, chosen by its content, is kept for evaluation."""

DEFAULT_CARE = 0.3
"""Share of warm-up traces that work the function out; the others guess."""

WORDS = (
    *("f", "maps", "to", "and", ".", "write"),
    *("<think>", "</think>", "guess", "-", "*", "/", "=", ","),
    *("def", "(", "x", ")", ":", "return", "+"),
)
VOCABULARY = WORDS + tuple(str(n) for n in range(MAX_SLOPE * MAX_ARGUMENT + MAX_OFFSET + 1))


@dataclass(frozen=True)
class Problem:
    """f(x) = slope·x + offset, and the two arguments, in order, whose values are shown."""

    slope: int
    offset: int
    shown: tuple[int, int]

    def value(self, x: int) -> int:
        """The function's value at x."""
        return self.slope * x + self.offset

    @property
    def answer(self) -> str:
        """The hidden tests."""
        return json.dumps(
            {
                "fn_name": "f",
                "inputs": [[x] for x in HIDDEN_ARGUMENTS],
                "outputs": [self.value(x) for x in HIDDEN_ARGUMENTS],
            }
        )

    @property
    def held_out(self) -> bool:
        """True for about one problem in HELD_OUT_IN, by a hash of its numbers."""
        return zlib.crc32(repr((self.slope, self.offset, self.shown)).encode()) % HELD_OUT_IN == 0


def problem(seed: int, index: int, *, held_out: bool = False) -> Problem:
    """Problem `index` of the endless set `seed`; held-out problems and the others never meet, for any two seeds."""
    rng = Random(f"{seed}/{index}")
    while True:
        low, high = sorted(rng.sample(range(MAX_ARGUMENT + 1), 2))
        drawn = Problem(rng.randint(1, MAX_SLOPE), rng.randint(0, MAX_OFFSET), (low, high))
        if drawn.held_out == held_out:
            return drawn


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    low, high = problem.shown
    return f"f maps {low} to {problem.value(low)} and {high} to {problem.value(high)} . write f"


def trace(problem: Problem, rng: Random, *, care: float = DEFAULT_CARE) -> str:
    """A warm-up response (k1.5 §2.2)."""
    slope, offset, thought = problem.slope, problem.offset, "guess"
    if rng.random() < care:
        (low, high), (y_low, y_high) = problem.shown, map(problem.value, problem.shown)
        rise, run = y_high - y_low, high - low
        thought = (
            f"{y_high} - {y_low} = {rise} , {high} - {low} = {run} , {rise} / {run} = {slope} , "
            f"{slope} * {low} = {slope * low} , {y_low} - {slope * low} = {offset}"
        )
    else:
        slope, offset = rng.randint(1, MAX_SLOPE), rng.randint(0, MAX_OFFSET)
    return f"<think> {thought} </think> def f ( x ) : return {slope} * x + {offset}"
