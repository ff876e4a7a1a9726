"""Positions: in which cell of a grid does a picture show a thing?

question   In which cell is the red circle? Columns are a b c d from the left, rows 1 2 3 4 from the top. End with
           answer: and a cell.
response   a1 none b1 red circle a2 blue square b2 none answer: b1
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from perilune.images.drawing import SHAPES
from perilune.tasks import drawn
from perilune.tasks.drawn import Thing

MIN_THINGS, MAX_THINGS = 2, 5
VOCABULARY = (
    *("In", "which", "cell", "is", "the", *(f"{shape}?" for shape in SHAPES)),
    *("Columns", "are", *drawn.COLUMNS[: drawn.SIDE], "from", "left,", "rows"),
    *(*map(str, range(1, drawn.SIDE + 1)), "top.", "End", "with", "and", "cell."),
    *drawn.SCENE_WORDS,
)


@dataclass(frozen=True)
class Problem(drawn.AboutScene):
    """A scene without two things alike, and the one to find."""

    kind: ClassVar[str] = "positions"
    thing: Thing

    @property
    def answer(self) -> str:
        """The name of its cell."""
        place = next(place for place, thing in self.scene.things if thing == self.thing)
        return drawn.cell_name(place, self.scene.side)

    @property
    def content(self) -> str:
        """A text of all that it shows and asks."""
        return f"{self.thing}: {self.scene.words}"


def problem(
    seed: int,
    index: int,
    *,
    held_out: bool = False,
    min_things: int = MIN_THINGS,
    max_things: int = MAX_THINGS,
    side: int = drawn.SIDE,
    cell: int = drawn.CELL,
) -> Problem:
    """Problem `index` of the endless set `seed`, with so many things. ValueError: options that do not fit."""
    drawn.check_range("things", min_things, max_things, least=1)

    def make(rng: Random) -> Problem:
        things = drawn.distinct_things(rng, rng.randint(min_things, max_things))
        return Problem(drawn.place_things(rng, side, cell, things), things[0])

    return drawn.problem_at(seed, index, held_out, make)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    side = problem.scene.side
    columns, rows = " ".join(drawn.COLUMNS[:side]), " ".join(map(str, range(1, side + 1)))
    return (
        f"In which cell is the {problem.thing}? Columns are {columns} from the left, rows {rows} from the top. "
        f"{drawn.SAY_ANSWER} a cell."
    )


draw = drawn.draw_scene


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2)."""
    return drawn.answered(rng, looks, problem.scene.words, problem.answer, drawn.cell_names(problem.scene.side))
