"""Chains of sums of digits, short enough to be read off a small picture of their text.

    question   4 + 7 + 2
    response   4 + 7 = 11 + 2 = 13 answer: 13

Warm-up traces work it out or guess, as the option `works` says: a model that is at home in text and not in pictures
starts with traces of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from perilune.tasks import drawn

DIGITS = 9
NUM_TERMS, MAX_TERMS = 3, 6
DEFAULT_WORKS = 0.3
"""Share of warm-up traces that work the sum out; the others guess."""

VOCABULARY = ("+", "=", "answer:", *map(str, range(DIGITS * MAX_TERMS + 1)))


@dataclass(frozen=True)
class Problem:
    """Digits to add."""

    terms: tuple[int, ...]

    @property
    def answer(self) -> str:
        """The sum."""
        return str(sum(self.terms))

    @property
    def labels(self) -> dict[str, str]:
        """Its difficulty: the number of terms."""
        return {"difficulty": str(len(self.terms))}

    @property
    def content(self) -> str:
        """A text of all that it asks."""
        return " ".join(map(str, self.terms))


def problem(seed: int, index: int, *, held_out: bool = False, num_terms: int = NUM_TERMS) -> Problem:
    """Problem `index` of the endless set `seed`. ValueError: no such number of terms."""
    if not 2 <= num_terms <= MAX_TERMS:
        raise ValueError(f"num_terms must be 2 to {MAX_TERMS}, and is {num_terms}")

    def make(rng: Random) -> Problem:
        return Problem(tuple(rng.randint(1, DIGITS) for _ in range(num_terms)))

    return drawn.problem_at(seed, index, held_out, make)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return " + ".join(map(str, problem.terms))


def trace(problem: Problem, rng: Random, *, works: float = DEFAULT_WORKS) -> str:
    """A warm-up response (k1.5 §2.2)."""
    if rng.random() >= works:
        return f"answer: {rng.randint(len(problem.terms), DIGITS * len(problem.terms))}"
    first, *others = problem.terms
    words, total = [str(first)], first
    for term in others:
        total += term
        words += ["+", str(term), "=", str(total)]
    return " ".join([*words, "answer:", problem.answer])
