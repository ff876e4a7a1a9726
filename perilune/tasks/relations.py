"""Relations: where is one thing of a picture, as seen from another?

question   Where is the red circle, as seen from the blue square? End with answer: and above, below, left or right.
response   a1 none b1 red circle a2 blue square b2 none answer: above right
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from perilune.images.drawing import SHAPES
from perilune.tasks import drawn
from perilune.tasks.drawn import Thing

MIN_THINGS, MAX_THINGS = 2, 4
DIRECTIONS = ("above", "below", "left", "right", "above left", "above right", "below left", "below right")
VOCABULARY = (
    *("Where", "is", "the", *(f"{shape}," for shape in SHAPES), "as", "seen", "from", *(f"{s}?" for s in SHAPES)),
    *("End", "with", "and", "above,", "below,", "or", "right.", "above", "below", "left", "right"),
    *drawn.SCENE_WORDS,
)


@dataclass(frozen=True)
class Problem(drawn.AboutScene):
    """A scene without two things alike; where `thing` is from `seen_from`."""

    kind: ClassVar[str] = "relations"
    thing: Thing
    seen_from: Thing

    @property
    def answer(self) -> str:
        """One of DIRECTIONS."""
        places = {thing: place for place, thing in self.scene.things}
        (row, column), (from_row, from_column) = (
            divmod(places[each], self.scene.side) for each in (self.thing, self.seen_from)
        )
        vertical = ["above"] * (row < from_row) + ["below"] * (row > from_row)
        return " ".join([*vertical, *["left"] * (column < from_column), *["right"] * (column > from_column)])

    @property
    def content(self) -> str:
        """A text of all that it shows and asks."""
        return f"{self.thing} from {self.seen_from}: {self.scene.words}"


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
    drawn.check_range("things", min_things, max_things, least=2)

    def make(rng: Random) -> Problem:
        things = drawn.distinct_things(rng, rng.randint(min_things, max_things))
        return Problem(drawn.place_things(rng, side, cell, things), things[0], things[1])

    return drawn.problem_at(seed, index, held_out, make)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return (
        f"Where is the {problem.thing}, as seen from the {problem.seen_from}? {drawn.SAY_ANSWER} above, below, left or "
        "right."
    )


draw = drawn.draw_scene


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2)."""
    return drawn.answered(rng, looks, problem.scene.words, problem.answer, DIRECTIONS)
