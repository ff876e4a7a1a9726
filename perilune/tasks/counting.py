"""Counting: how many of the shapes in a picture have a colour?

    picture    red, blue and other shapes in a grid
    question   How many shapes are red? End with answer: and a number.
    response   a1 red circle b1 none a2 blue cross b2 red square answer: 2

Each count is asked for as often as each other. Warm-up traces mostly guess: under RL only looking pays.
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
    *("How", "many", "shapes", "are", *(f"{colour}?" for colour in COLOURS)),
    *("End", "with", "and", "a", "number."),
    *drawn.SCENE_WORDS,
    *map(str, range(MAX_THINGS + 1)),
)


@dataclass(frozen=True)
class Problem(drawn.AboutScene):
    """A scene, and the colour to count."""

    kind: ClassVar[str] = "counting"
    colour: str

    @property
    def answer(self) -> str:
        """The number of things in the colour."""
        return str(sum(thing.colour == self.colour for _, thing in self.scene.things))

    @property
    def content(self) -> str:
        """A text of all that it shows and asks."""
        return f"{self.colour}: {self.scene.words}"


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
        colour, size = rng.choice(list(COLOURS)), rng.randint(min_things, max_things)
        others = [each for each in COLOURS if each != colour]
        count = rng.randint(0, size)
        colours = [colour] * count + [rng.choice(others) for _ in range(size - count)]
        things = [Thing(each, rng.choice(SHAPES)) for each in colours]
        return Problem(drawn.place_things(rng, side, cell, things), colour)

    return drawn.problem_at(seed, index, held_out, make)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return f"How many shapes are {problem.colour}? {drawn.SAY_ANSWER} a number."


draw = drawn.draw_scene


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2)."""
    guesses = list(map(str, range(len(problem.scene.things) + 1)))
    return drawn.answered(rng, looks, problem.scene.words, problem.answer, guesses)
