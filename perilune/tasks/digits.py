"""Handwritten digits, of 43 people (scikit-learn's `digits`, from the UCI repository): which number is written?

    question   Which number is written? End with answer: and the number.
    response   7 3 answer: 73

Pictures that are held out are of other digits than those that are trained on: one in five of the 1,797.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from perilune.errors import MissingDependencyError
from perilune.tasks import drawn

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, LEVELS = 8, 16  # pixels of a digit, and levels of its ink
MAX_DIGITS = 3
VOCABULARY = (
    *("Which", "number", "is", "written?", "End", "with", "and", "the", "number.", "answer:"),
    *map(str, range(10**MAX_DIGITS)),
    *(f"{n:0{width}}" for width in range(2, MAX_DIGITS + 1) for n in range(10 ** (width - 1))),
)


@dataclass(frozen=True)
class Problem:
    """Digits of the collection by their numbers, side by side."""

    chosen: tuple[int, ...]
    scale: int

    @property
    def answer(self) -> str:
        """The number that is written."""
        _, targets = _collection()
        return "".join(str(targets[each]) for each in self.chosen)

    @property
    def labels(self) -> dict[str, str]:
        """Its difficulty: the number of digits."""
        return {"difficulty": str(len(self.chosen)), "kind": "digits"}


def problem(seed: int, index: int, *, held_out: bool = False, num_digits: int = 1, scale: int = 4) -> Problem:
    """Problem `index` of the endless set `seed`.

    ValueError: options that do not fit. MissingDependencyError: scikit-learn is not installed.
    """
    if not 1 <= num_digits <= MAX_DIGITS:
        raise ValueError(f"num_digits must be 1 to {MAX_DIGITS}, and is {num_digits}")
    if not 1 <= scale <= 64:
        raise ValueError(f"scale must be 1 to 64, and is {scale}")
    _, targets = _collection()
    pool = [each for each in range(len(targets)) if (each % drawn.HELD_OUT_IN == 0) == held_out]
    rng = Random(f"{seed}/{index}")
    return Problem(tuple(rng.choice(pool) for _ in range(num_digits)), scale)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return f"Which number is written? {drawn.SAY_ANSWER} the number."


def draw(problem: Problem) -> Image:
    """The picture: dark on white, every pixel of a digit `scale` pixels wide."""
    from PIL import Image as Pictures

    images, _ = _collection()
    image = Pictures.new("L", (SIDE * len(problem.chosen), SIDE))
    for place, number in enumerate(problem.chosen):
        ink = bytes(255 - int(level) * 255 // LEVELS for row in images[number] for level in row)
        image.paste(Pictures.frombytes("L", (SIDE, SIDE), ink), (place * SIDE, 0))
    size = (image.width * problem.scale, image.height * problem.scale)
    return image.resize(size, Pictures.Resampling.NEAREST).convert("RGB")


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2): digit by digit, or a guess."""
    guess = "".join(str(rng.randrange(10)) for _ in problem.chosen)
    return drawn.answered(rng, looks, " ".join(problem.answer), problem.answer, [guess])


@cache
def _collection() -> tuple[Any, Any]:
    """Images and their digits."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError("the task digits needs `pip install scikit-learn`") from error
    found: Any = load_digits()
    return found.images, found.target
