"""Small sums in plain language, for a pretrained model that half knows them.

    question   What is 7 + 12? Answer with the number only.
    response   19

A chat model knows many of these answers and rambles around them; at temperature 1 most samples miss. Reinforcement
learning on the number alone teaches both: to answer briefly, and to add.
"""

import zlib
from dataclasses import dataclass
from random import Random

MAX_NUMBER = 20
HELD_OUT_IN = 4
"""One sum in four, chosen by its numbers in either order, is never trained on."""

VOCABULARY = (
    *("What", "is", "+", "?", "=", "Answer", "with", "the", "number", "only."),
    *map(str, range(1, 2 * MAX_NUMBER + 1)),
)


@dataclass(frozen=True)
class Problem:
    """Two numbers to add."""

    a: int
    b: int

    @property
    def answer(self) -> str:
        """The sum."""
        return str(self.a + self.b)

    @property
    def held_out(self) -> bool:
        """True for about one problem in HELD_OUT_IN, by a hash of its numbers in either order."""
        return zlib.crc32(repr(sorted((self.a, self.b))).encode()) % HELD_OUT_IN == 0


def problem(seed: int, index: int, *, held_out: bool = False) -> Problem:
    """Problem `index` of the endless set `seed`; held-out problems and the others never meet, for any two seeds."""
    rng = Random(f"{seed}/{index}")
    while True:
        drawn = Problem(rng.randint(1, MAX_NUMBER), rng.randint(1, MAX_NUMBER))
        if drawn.held_out == held_out:
            return drawn


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return f"What is {problem.a} + {problem.b}? Answer with the number only."


def trace(problem: Problem, rng: Random) -> str:
    """A warm-up response (k1.5 §2.2): the sum written out; there is nothing to draw."""
    return f"{problem.a} + {problem.b} = {problem.answer}"
