"""Sums of products, which a small model cannot compute and a calculator can: does it learn to ask?

    question   what is 7 * 8 + 6 * 9 ?
    response   calc 7 * 8 = 56 calc 6 * 9 = 54 calc 56 + 54 = 110 answer: 110

With `rollout.environment` set to the calculator, what follows each `=` of a call is said by it and not by the policy.
Warm-up traces often guess instead, as a model does that knows the tool and does not trust it; a guess is nearly always
wrong, so that only the calls pay.
"""

import zlib
from dataclasses import dataclass
from random import Random

MIN_FACTOR, MAX_FACTOR = 2, 19
HELD_OUT_IN = 5
"""One problem in five, chosen by its content, is kept for evaluation."""

DEFAULT_CALLS = 0.3
"""Share of warm-up traces that use the calculator to the end; the others guess at some point."""
GIVES_UP = (6, 1, 1)
"""Says how often those ask never, once and twice: most never, so that greedy decoding guesses before RL."""

_LARGEST = 2 * MAX_FACTOR * MAX_FACTOR
WORDS = ("what", "is", "*", "+", "-", "?", "=", "calc", "guess", "answer:", "error")
VOCABULARY = WORDS + tuple(str(n) for n in range(_LARGEST + 1))


@dataclass(frozen=True)
class Problem:
    """a·b + c·d."""

    a: int
    b: int
    c: int
    d: int

    @property
    def answer(self) -> str:
        """The value of a * b + c * d."""
        return str(self.a * self.b + self.c * self.d)

    @property
    def held_out(self) -> bool:
        """True for about one problem in HELD_OUT_IN, by a hash of its numbers."""
        return zlib.crc32(repr((self.a, self.b, self.c, self.d)).encode()) % HELD_OUT_IN == 0


def problem(seed: int, index: int, *, held_out: bool = False) -> Problem:
    """Problem `index` of the endless set `seed`; held-out problems and the others never meet, for any two seeds."""
    rng = Random(f"{seed}/{index}")
    while True:
        drawn = Problem(*(rng.randint(MIN_FACTOR, MAX_FACTOR) for _ in range(4)))
        if drawn.held_out == held_out:
            return drawn


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return f"what is {problem.a} * {problem.b} + {problem.c} * {problem.d} ?"


def trace(problem: Problem, rng: Random, *, calls: float = DEFAULT_CALLS) -> str:
    """A warm-up response (k1.5 §2.2). Where it guesses, a number near the truth stands for the result."""
    first, second = problem.a * problem.b, problem.c * problem.d
    steps = ((f"{problem.a} * {problem.b}", first), (f"{problem.c} * {problem.d}", second))
    (num_calls,) = (3,) if rng.random() < calls else rng.choices(range(3), weights=GIVES_UP)
    words, known = [], []
    for number, (expression, value) in enumerate(steps):
        asks = number < num_calls
        known.append(value if asks else _guess(value, rng))
        words.append(f"calc {expression} = {value}" if asks else f"guess {known[-1]}")
    total = sum(known)
    if num_calls == 3:
        words.append(f"calc {known[0]} + {known[1]} = {total}")
    else:
        total = _guess(total, rng)
    return " ".join([*words, f"answer: {total}"])


def _guess(value: int, rng: Random) -> int:
    return min(_LARGEST, max(1, value + rng.randint(-20, 20)))
