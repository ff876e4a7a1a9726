"""Guess the number: seven numbers in a row, three guesses, and after each the hint where to look.

    question   game 41 guess from 9 to 15
    response   12 <eos> higher 14 <eos> lower 13 <eos> right

With `rollout.environment` set to the game, what follows each turn is its answer, a chat message, and not the policy's.
Halving what is left finds every number in three guesses. Warm-up traces often guess without regard to the hints, as a
model does that knows how to play and not how to win.
"""

import zlib
from dataclasses import dataclass
from random import Random

NUM_NUMBERS, NUM_GUESSES = 7, 3
MIN_FIRST, MAX_FIRST = 1, 6
NUM_GAMES = 100
HELD_OUT_IN = 5
"""One game in five, chosen by its number, is kept for evaluation. Were it chosen by its secret, a policy would learn
which numbers are never right."""

DEFAULT_HALVES = 0.2
"""Share of warm-up traces that halve what is left each time; the others guess anything in the range."""

TURN_END = "<eos>"
"""With which a model that is made on the spot ends its turn."""

WORDS = ("game", "guess", "from", "to", "higher", "lower", "right", "what")
VOCABULARY = WORDS + tuple(str(n) for n in range(MIN_FIRST, max(NUM_GAMES + 1, MAX_FIRST + NUM_NUMBERS)))


@dataclass(frozen=True)
class Problem:
    """A secret among the seven numbers that begin with `first`; the number of the game says nothing of it."""

    game: int
    first: int
    secret: int

    @property
    def answer(self) -> str:
        """The reference answer."""
        return str(self.secret)

    @property
    def last(self) -> int:
        """The largest number that the secret may be."""
        return self.first + NUM_NUMBERS - 1

    @property
    def held_out(self) -> bool:
        """Tests whether it is kept for evaluation."""
        return zlib.crc32(repr(self.game).encode()) % HELD_OUT_IN == 0


def problem(seed: int, index: int, *, held_out: bool = False) -> Problem:
    """Problem `index` of the endless set `seed`; held-out games and the others never meet, for any two seeds."""
    rng = Random(f"{seed}/{index}")
    while True:
        first = rng.randint(MIN_FIRST, MAX_FIRST)
        drawn = Problem(rng.randint(1, NUM_GAMES), first, rng.randint(first, first + NUM_NUMBERS - 1))
        if drawn.held_out == held_out:
            return drawn


def question(problem: Problem) -> str:
    """The question as the policy reads it."""
    return f"game {problem.game} guess from {problem.first} to {problem.last}"


def trace(problem: Problem, rng: Random, *, halves: float = DEFAULT_HALVES) -> str:
    """A warm-up response (k1.5 §2.2): a whole game, up to the last guess."""
    low, high, is_good = problem.first, problem.last, rng.random() < halves
    words: list[str] = []
    for _ in range(NUM_GUESSES):
        guess = (low + high) // 2 if is_good else rng.randint(problem.first, problem.last)
        words.append(str(guess))
        if guess == problem.secret:
            break
        if guess < problem.secret:
            low = max(low, guess + 1)
        else:
            high = min(high, guess - 1)
        words += [TURN_END, "higher" if guess < problem.secret else "lower"]
    return " ".join(words if words[-1].isdigit() else words[:-2])
