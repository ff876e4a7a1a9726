"""Parts of tasks that draw: the choice of problems, and scenes of coloured shapes in the cells of a grid."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from perilune.images.drawing import COLOURS, SHAPES, Box, blank, draw_grid, draw_shape

if TYPE_CHECKING:
    from PIL.Image import Image

HELD_OUT_IN = 5
"""One problem in five, chosen by what it shows and asks, is kept for evaluation."""
DEFAULT_LOOKS = 0.3
"""Share of warm-up traces that say what is seen before they answer; the others guess, as a model does that can see and
has not learnt that looking pays."""
SIDE, CELL = 4, 8
"""Cells of a row, and pixels of a cell, where a recipe says nothing else: what a model of two cores can learn to see.
Models of a real size want larger cells."""
LINES_FROM = 24  # pixels of a cell: smaller ones have no room for lines between them
MAX_SIDE = 8
COLUMNS = "abcdefgh"
NOTHING = "none"  # in a cell
SAY_ANSWER = "End with answer: and"


class Shown(Protocol):
    """A problem whose text says what it shows and asks."""

    @property
    def content(self) -> str:
        """Differs where any two problems do."""


P = TypeVar("P", bound=Shown)


def problem_at(seed: int, index: int, held_out: bool, make: Callable[[Random], P]) -> P:
    """Problem `index` of the endless set `seed`; held-out problems and the others never meet, for any two seeds."""
    rng = Random(f"{seed}/{index}")
    while True:
        made = make(rng)
        if (zlib.crc32(made.content.encode()) % HELD_OUT_IN == 0) == held_out:
            return made


def answered(rng: Random, looks: float, seen: str, answer: str, guesses: Sequence[str]) -> str:
    """A warm-up trace: what is seen and the answer, or a guess."""
    if rng.random() < looks:
        return f"{seen} answer: {answer}"
    return f"answer: {rng.choice(guesses)}"


# --- Scenes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thing:
    """A coloured shape."""

    colour: str
    shape: str

    def __str__(self) -> str:
        """Names it, as in `red circle`."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Things in the cells of a square grid, by row from the top and column from the left."""

    side: int
    cell: int  # pixels
    things: tuple[tuple[int, Thing], ...]  # by the number of the cell, in the order of reading

    @property
    def words(self) -> str:
        """Says what is seen in every cell, as in `a1 none b1 red circle a2 blue cross b2 none`."""
        return self.said(range(self.side**2))

    def said(self, places: Iterable[int]) -> str:
        """Says what is seen in some cells. Read cell by cell nothing has to be searched for."""
        things = dict(self.things)
        return " ".join(f"{cell_name(place, self.side)} {things.get(place, NOTHING)}" for place in places)

    def draw(self) -> Image:
        """The picture. Each thing lies a little off the middle of its cell, and where is a hash of the scene."""
        image, draw = blank(self.side * self.cell, self.side * self.cell)
        if self.cell >= LINES_FROM:
            draw_grid(draw, self.side, self.side, self.cell)
        rng = Random(zlib.crc32(repr(self.things).encode()))
        for place, thing in self.things:
            draw_shape(draw, thing.shape, _box(place, self.side, self.cell, rng), thing.colour)
        return image


@dataclass(frozen=True)
class AboutScene:
    """A problem about a scene: a task adds what is asked for."""

    kind: ClassVar[str]  # the task's name
    scene: Scene

    @property
    def labels(self) -> dict[str, str]:
        """Its difficulty, the number of things; and its kind."""
        return {"difficulty": str(len(self.scene.things)), "kind": self.kind}


def draw_scene(problem: AboutScene) -> Image:
    """The picture that a question about a scene is about: `draw` of such tasks."""
    return problem.scene.draw()


def place_things(rng: Random, side: int, cell: int, things: Sequence[Thing]) -> Scene:
    """A scene of things in cells that are drawn without repetition. ValueError: no such grid, or no room in it."""
    check_grid(side, cell)
    if len(things) > side * side:
        raise ValueError(f"{len(things)} things have no room in {side} x {side} cells")
    places = rng.sample(range(side * side), len(things))
    return Scene(side, cell, tuple(sorted(zip(places, things, strict=True), key=lambda each: each[0])))


def check_grid(side: int, cell: int) -> None:
    """ValueError: a grid that cannot be drawn or named."""
    if not 2 <= side <= MAX_SIDE:
        raise ValueError(f"side must be 2 to {MAX_SIDE} cells, and is {side}")
    if not 6 <= cell <= 256:
        raise ValueError(f"cell must be 6 to 256 pixels, and is {cell}")


def check_range(name: str, low: int, high: int, least: int, most: int = 100) -> None:
    """ValueError: the options `min_NAME` and `max_NAME` are no range of numbers from `least` to `most`."""
    if not least <= low <= high <= most:
        raise ValueError(f"min_{name} = {low} and max_{name} = {high} must be {least} to {most}, the first no larger")


def names_of(text: str, known: Iterable[str]) -> list[str]:
    """The names in a text. ValueError: there is none, or one that is not known."""
    names, known = text.split(), list(known)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"there is no kind {unknown[0]!r}; known are {', '.join(known)}")
    if not names:
        raise ValueError(f"kinds names none of {', '.join(known)}")
    return names


def any_thing(rng: Random) -> Thing:
    """Any shape in any colour."""
    return Thing(rng.choice(list(COLOURS)), rng.choice(SHAPES))


def distinct_things(rng: Random, count: int) -> list[Thing]:
    """Things of which no two are alike in shape and colour. ValueError: there are not so many."""
    every = [Thing(colour, shape) for colour in COLOURS for shape in SHAPES]
    return rng.sample(every, count)


def cell_name(place: int, side: int) -> str:
    """A cell's name: its column's letter and its row's number from the top, as in `b3`."""
    row, column = divmod(place, side)
    return f"{COLUMNS[column]}{row + 1}"


def cell_names(side: int) -> list[str]:
    """The names of all cells, in the order of reading."""
    return [cell_name(place, side) for place in range(side * side)]


def _box(place: int, side: int, cell: int, rng: Random) -> Box:
    """The place of a thing in its cell, of which it takes three quarters."""
    row, column = divmod(place, side)
    size = cell * 3 // 4
    left = column * cell + 1 + rng.randrange(cell - size)
    top = row * cell + 1 + rng.randrange(cell - size)
    return (left, top, left + size - 1, top + size - 1)


SCENE_WORDS = (*COLOURS, *SHAPES, *cell_names(SIDE), NOTHING, "answer:")
"""Every word of what is seen of a scene of the usual size."""
