"""Colours: in which colour is a shape that a picture shows once?

question   Which colour is the square? End with answer: and a colour.
response   a1 none b1 red circle a2 blue square b2 none answer: blue
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from perilune.images.drawing import COLOURS, SHAPES
from perilune.tasks import drawn
from perilune.tasks.drawn import Thing

MIN_THINGS, MAX_THINGS = 2, 5
VOCABULARY = (
    *("Which", "colour", "is", "the", *(f"{shape}?" for shape in SHAPES)),
    *("End", "with", "and", "a", "colour."),
    *drawn.SCENE_WORDS,
)


@dataclass(frozen=True)
class Problem(drawn.AboutScene):
    """A scene, and a shape that it holds once."""

    kind: ClassVar[str] = "colours"
    shape: str

    @property
    def answer(self) -> str:
        """The colour of the shape."""
        return next(thing.colour for _, thing in self.scene.things if thing.shape == self.shape)

    @property
    def content(self) -> str:
        """A text of all that it shows and asks."""
        return f"{self.shape}: {self.scene.words}"


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
        shape, size = rng.choice(SHAPES), rng.randint(min_things, max_things)
        others = [each for each in SHAPES if each != shape]
        shapes = [shape, *(rng.choice(others) for _ in range(size - 1))]
        things = [Thing(rng.choice(list(COLOURS)), each) for each in shapes]
        return Problem(drawn.place_things(rng, side, cell, things), shape)

    return drawn.problem_at(seed, index, held_out, make)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return f"Which colour is the {problem.shape}? {drawn.SAY_ANSWER} a colour."


draw = drawn.draw_scene


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2)."""
    return drawn.answered(rng, looks, problem.scene.words, problem.answer, list(COLOURS))
