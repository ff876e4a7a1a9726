"""Pattern completion: things follow one another by a rule, row by row; what comes last?

    question   The shapes repeat, row by row. Which one belongs into the last cell? End with answer: and a colour and a
               shape.
    response   a1 red circle b1 blue square c1 red circle d1 blue square answer: blue square

Two or three things take turns. A trace that looks says the first row and what the last cell continues.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from perilune.tasks import drawn
from perilune.tasks.drawn import Scene, Thing

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_PERIOD, MAX_PERIOD = 2, 3
VOCABULARY = (
    *("The", "shapes", "repeat,", "row", "by", "row.", "Which", "one", "belongs", "into", "the", "last", "cell?"),
    *("End", "with", "and", "a", "colour", "shape."),
    *drawn.SCENE_WORDS,
)


@dataclass(frozen=True)
class Problem:
    """Things that take turns in every cell of a scene but the last."""

    scene: Scene
    turns: tuple[Thing, ...]

    @property
    def answer(self) -> str:
        """The thing that the last cell would hold."""
        return str(self.turns[(self.scene.side**2 - 1) % len(self.turns)])

    @property
    def labels(self) -> dict[str, str]:
        """Its difficulty: how many things take turns."""
        return {"difficulty": str(len(self.turns)), "kind": "patterns"}

    @property
    def content(self) -> str:
        """A text of all that it shows and asks."""
        return " ".join(map(str, self.turns))


def problem(
    seed: int,
    index: int,
    *,
    held_out: bool = False,
    min_period: int = MIN_PERIOD,
    max_period: int = MAX_PERIOD,
    side: int = drawn.SIDE,
    cell: int = drawn.CELL,
) -> Problem:
    """Problem `index` of the endless set `seed`. ValueError: options that do not fit."""
    drawn.check_grid(side, cell)
    drawn.check_range("period", min_period, max_period, least=2, most=side * side - 1)

    def make(rng: Random) -> Problem:
        turns = tuple(drawn.distinct_things(rng, rng.randint(min_period, max_period)))
        things = tuple((place, turns[place % len(turns)]) for place in range(side * side - 1))
        return Problem(Scene(side, cell, things), turns)

    return drawn.problem_at(seed, index, held_out, make)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return (
        f"The shapes repeat, row by row. Which one belongs into the last cell? {drawn.SAY_ANSWER} a colour and a shape."
    )


def draw(problem: Problem) -> Image:
    """The picture that the question is about."""
    return problem.scene.draw()


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2)."""
    first_row = problem.scene.said(range(problem.scene.side))
    return drawn.answered(rng, looks, first_row, problem.answer, [str(drawn.any_thing(rng))])
