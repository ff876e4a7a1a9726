"""Search by trial and error: which two of these numbers add up to the target?

A task small enough for a tiny model that still has the shape of a long chain of thought: try a
pair, judge the sum, try the next. Warm-up traces (k1.5 §2.2) do every step correctly but mostly
lose patience, so a policy fresh from the warm-up gives up early. RL has to find out that
persistence pays: accuracy and response length rise together (k1.5 §3.3, Fig. 5 in kind).

    question   which two of 9 15 4 11 12 make 21 ?
    response   9 + 15 = 24 high 9 + 4 = 13 low 9 + 11 = 20 low 9 + 12 = 21 yes answer: 9 12

The answer is whatever follows the last `answer:`, read as an unordered pair. Exactly one pair is
right, so `Problem.answer` is a full reference. Giving up (`answer: none`) is a wrong answer, and
the steps before the answer are never graded.

Texts are words separated by single spaces, every one of them in `VOCABULARY`.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from random import Random

MAX_NUMBER = 15
HELD_OUT_IN = 10
"""One problem in ten, chosen by its content, is kept for evaluation."""

WORDS = ("which", "two", "of", "make", "?", "+", "=", "low", "high", "yes", "answer:", "none")
VOCABULARY = WORDS + tuple(str(n) for n in range(1, 2 * MAX_NUMBER))
"""Every word of a question or a trace; the largest sum is MAX_NUMBER + (MAX_NUMBER - 1)."""

PATIENCE: Mapping[int | None, int] = {1: 8, 2: 7, None: 5}
"""Says how many failed tries a warm-up trace bears before it gives up, with weights; None: all of them.

Most traces stop after one or two, so sampled and greedy accuracy both start low. The one in four that never gives up
shows the whole order of pairs, and is all that teaches a policy to judge a sum late in a response: with half as many,
the judgement after the third try was wrong for some seeds, and reinforcement learning could not mend it in time.
"""

MAX_TIMES = 3  # that a trace in doubt writes a try


@dataclass(frozen=True)
class Problem:
    """Distinct numbers, and a target that exactly one pair of them adds up to."""

    numbers: tuple[int, ...]
    target: int
    solution: tuple[int, int]

    @property
    def answer(self) -> str:
        """The reference: what follows `answer:` in a right response, in either order."""
        return "{} {}".format(*self.solution)

    @property
    def held_out(self) -> bool:
        """True if the problem is kept for evaluation; the order of the numbers makes no difference."""
        content = f"{sorted(self.numbers)} {self.target}"
        return zlib.crc32(content.encode()) % HELD_OUT_IN == 0


def problem(seed: int, index: int, *, num_numbers: int = 5, held_out: bool = False) -> Problem:
    """Problem `index` of the endless set `seed`; the same arguments give the same problem.

    Held-out problems never occur among the others, whatever the seeds. More numbers make a harder
    problem (a grade for the curriculum of k1.5 §2.3.4). Raises ValueError if `num_numbers` is not
    between 2 and half of MAX_NUMBER.
    """
    if not 2 <= num_numbers <= MAX_NUMBER // 2:
        raise ValueError(f"num_numbers must be 2 to {MAX_NUMBER // 2}, not {num_numbers}")
    rng = Random(f"{seed}/{index}")
    while True:
        numbers = tuple(rng.sample(range(1, MAX_NUMBER + 1), num_numbers))
        pairs = list(combinations(numbers, 2))
        solution = rng.choice(pairs)
        drawn = Problem(numbers, sum(solution), solution)
        is_unique = [sum(pair) for pair in pairs].count(drawn.target) == 1
        if is_unique and drawn.held_out == held_out:
            return drawn


def question(problem: Problem) -> str:
    """The prompt, e.g. `which two of 9 15 4 11 12 make 21 ?`."""
    return f"which two of {' '.join(map(str, problem.numbers))} make {problem.target} ?"


def trace(
    problem: Problem,
    rng: Random,
    *,
    patience: Mapping[int | None, int] = PATIENCE,
    gives_up: bool = True,
    doubt: float = 0.0,
) -> str:
    """A warm-up response: tries pairs in order until one fits or its patience, drawn here, ends.

    One that never `gives_up` has all the patience it needs. With `doubt` it makes sure: so likely is it that a try that
    failed is written once more, and then a third time. That is worth nothing, so that a problem has long solutions and
    short ones; the tries themselves are worth their tokens.

    `low` and `high` rather than a plain `no` give the warm-up more to learn the comparison from.
    Unlike the verified paths of k1.5 §2.2 traces that give up are kept: they are RL's headroom.
    """
    (max_tries,) = rng.choices(list(patience), weights=list(patience.values())) if gives_up else (None,)
    steps: list[str] = []
    for num_tries, (a, b) in enumerate(combinations(problem.numbers, 2), start=1):
        if a + b == problem.target:
            return " ".join([*steps, f"{a} + {b} = {a + b} yes answer: {a} {b}"])
        steps += [f"{a} + {b} = {a + b} {'low' if a + b < problem.target else 'high'}"] * _num_times(doubt, rng)
        if num_tries == max_tries:
            return " ".join([*steps, "answer: none"])
    raise AssertionError("a problem has a solution")


def _num_times(doubt: float, rng: Random) -> int:
    """How often a try is written, at most MAX_TIMES."""
    return next((times for times in range(1, MAX_TIMES) if not doubt or rng.random() >= doubt), MAX_TIMES)
