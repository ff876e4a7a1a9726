"""Sums of two-digit numbers in plain language, of which a small pretrained model knows few.

    question   What is 47 + 38? Answer with the number only.
    response   85

The carry is what a model lacks that half knows the small sums of `perilune.tasks.sums`.
"""

from dataclasses import dataclass
from random import Random

from perilune.tasks import sums
from perilune.tasks.sums import question, trace

__all__ = ["VOCABULARY", "Problem", "problem", "question", "trace"]

MIN_NUMBER, MAX_NUMBER = 10, 99

VOCABULARY = (
    *("What", "is", "+", "?", "=", "Answer", "with", "the", "number", "only."),
    *map(str, range(MIN_NUMBER, 2 * MAX_NUMBER + 1)),
)


@dataclass(frozen=True)
class Problem(sums.Problem):
    """Two numbers of two digits to add."""


def problem(seed: int, index: int, *, held_out: bool = False) -> Problem:
    """Problem `index` of the endless set `seed`; held-out problems and the others never meet, for any two seeds."""
    rng = Random(f"{seed}/{index}")
    while True:
        drawn = Problem(rng.randint(MIN_NUMBER, MAX_NUMBER), rng.randint(MIN_NUMBER, MAX_NUMBER))
        if drawn.held_out == held_out:
            return drawn
