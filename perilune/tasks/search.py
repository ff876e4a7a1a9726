"""Search by trial and error: which two of these numbers add up to the target?

A task small enough for a tiny model that still has the shape of a long chain of thought: try a
pair, look at the sum, say `no`, try the next one. Warm-up traces (k1.5 §2.2) do every step
correctly but mostly lose patience, so a policy fresh from the warm-up gives up early. RL has to
find out that persistence pays: accuracy and response length rise together (k1.5 §3.3, Fig. 5 in
kind).

    question   which two of 9 25 4 17 12 make 21 ?
    response   9 + 25 = 34 no 9 + 4 = 13 no 9 + 17 = 26 no 9 + 12 = 21 yes answer: 9 12

The answer is whatever follows the last `answer:`, read as an unordered pair. Exactly one pair is
right, so `Problem.answer` is a full reference. Giving up (`answer: none`) is a wrong answer, and
the steps before the answer are never graded.

Texts are words separated by single spaces, every word of them in `VOCABULARY`.
"""

import zlib
from dataclasses import dataclass
from itertools import combinations
from random import Random

MAX_NUMBER = 30
NUM_NUMBERS = 5
HELD_OUT_IN = 10
"""One problem in ten, chosen by its content, is never trained on."""

WORDS = ("which", "two", "of", "make", "?", "+", "=", "no", "yes", "answer:", "none")
VOCABULARY = WORDS + tuple(str(n) for n in range(1, 2 * MAX_NUMBER))
"""Every word a question or a trace can hold; the largest sum is MAX_NUMBER + (MAX_NUMBER - 1)."""

PATIENCE = {1: 6, 2: 9, 3: 3, None: 2}
"""How many failed tries a warm-up trace bears before it gives up, with weights; None: all of them.

Most traces stop after one or two, so sampling and greedy decoding both start low; the few that go
to the end show the whole order of pairs, without which RL would have nothing to reinforce.
"""


@dataclass(frozen=True)
class Problem:
    """Distinct numbers, and a target that exactly one pair of them adds up to."""

    numbers: tuple[int, ...]
    target: int
    solution: tuple[int, int]

    @property
    def answer(self) -> str:
        """The reference answer, as it stands after `answer:` in a right response."""
        return "{} {}".format(*self.solution)

    @property
    def held_out(self) -> bool:
        """Whether the problem belongs to the evaluation set, whatever the order of its numbers."""
        return zlib.crc32(repr((sorted(self.numbers), self.target)).encode()) % HELD_OUT_IN == 0


def problem(seed: int, index: int, *, held_out: bool = False) -> Problem:
    """Problem `index` of the endless set `seed`: the same arguments give the same problem.

    Held-out problems and the others never meet, for any two seeds.
    """
    rng = Random(f"{seed}/{index}")
    while True:
        numbers = tuple(rng.sample(range(1, MAX_NUMBER + 1), NUM_NUMBERS))
        pairs = list(combinations(numbers, 2))
        solution = rng.choice(pairs)
        drawn = Problem(numbers, sum(solution), solution)
        unique = sum(sum(pair) == drawn.target for pair in pairs) == 1
        if unique and drawn.held_out == held_out:
            return drawn


def question(problem: Problem) -> str:
    """The prompt, e.g. `which two of 9 25 4 17 12 make 21 ?`."""
    return f"which two of {' '.join(map(str, problem.numbers))} make {problem.target} ?"


def trace(problem: Problem, rng: Random, *, patience: dict[int | None, int] = PATIENCE) -> str:
    """A warm-up response: tries pairs in order until one fits or patience, drawn here, runs out.

    Every step is correct; only giving up (`answer: none`) makes a trace wrong. Unlike the verified
    paths of k1.5 §2.2 the traces are not filtered by their answer: that would leave RL no room.
    """
    (bears,) = rng.choices(list(patience), weights=patience.values())
    steps = []
    for num_tries, (a, b) in enumerate(combinations(problem.numbers, 2), start=1):
        if a + b == problem.target:
            return " ".join([*steps, f"{a} + {b} = {a + b} yes answer: {problem.answer}"])
        steps.append(f"{a} + {b} = {a + b} no")
        if num_tries == bears:
            return " ".join([*steps, "answer: none"])
    raise AssertionError("a problem has exactly one solution")
