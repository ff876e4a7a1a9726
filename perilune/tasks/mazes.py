"""Mazes: how long is the way from the green cell to the red one? There is one way, for the passages form a tree.

question   How many steps lead from the green cell to the red one? End with answer: and a number.
response   a1 b1 b2 answer: 2
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from perilune.images.drawing import COLOURS, blank
from perilune.tasks import drawn

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 4
VOCABULARY = (
    *("How", "many", "steps", "lead", "from", "the", "green", "cell", "to", "red", "one?"),
    *("End", "with", "and", "a", "number.", "answer:"),
    *drawn.cell_names(SIDE),
    *map(str, range(SIDE * SIDE)),
)
WALL = (20, 20, 20)


@dataclass(frozen=True)
class Problem:
    """Passages between cells of a square, and a way through them."""

    side: int
    cell: int  # pixels
    passages: frozenset[tuple[int, int]]  # pairs of neighbours, the smaller number first
    way: tuple[int, ...]  # cells from the start to the goal, both of them too

    @property
    def answer(self) -> str:
        """The steps of the way."""
        return str(len(self.way) - 1)

    @property
    def labels(self) -> dict[str, str]:
        """Its difficulty: the steps of the way."""
        return {"difficulty": self.answer, "kind": "mazes"}

    @property
    def content(self) -> str:
        """A text of all that it shows and asks."""
        return f"{self.way[0]} {self.way[-1]} {sorted(self.passages)}"


def problem(
    seed: int, index: int, *, held_out: bool = False, max_steps: int = 8, side: int = SIDE, cell: int = drawn.CELL
) -> Problem:
    """Problem `index` of the endless set `seed`; ways have 1 to `max_steps`. ValueError: options that do not fit."""
    drawn.check_grid(side, cell)
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, and is {max_steps}")

    def make(rng: Random) -> Problem:
        passages = _tree(rng, side)
        start = rng.randrange(side * side)
        ways = _ways(start, side, passages)
        steps = rng.randint(1, min(max_steps, max(map(len, ways.values())) - 1))
        way = rng.choice([way for way in ways.values() if len(way) == steps + 1])
        return Problem(side, cell, passages, way)

    return drawn.problem_at(seed, index, held_out, make)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return f"How many steps lead from the green cell to the red one? {drawn.SAY_ANSWER} a number."


def draw(problem: Problem) -> Image:
    """The picture: black walls, and the two cells in colour."""
    side, cell = problem.side, problem.cell
    image, canvas = blank(side * cell, side * cell)
    for place, colour in ((problem.way[0], "green"), (problem.way[-1], "red")):
        row, column = divmod(place, side)
        inset = cell // 4
        box = (column * cell + inset, row * cell + inset, (column + 1) * cell - inset - 1, (row + 1) * cell - inset - 1)
        canvas.rectangle(box, fill=COLOURS[colour])
    canvas.rectangle((0, 0, side * cell - 1, side * cell - 1), outline=WALL)
    for place in range(side * side):
        row, column = divmod(place, side)
        if column + 1 < side and (place, place + 1) not in problem.passages:
            canvas.line(((column + 1) * cell, row * cell, (column + 1) * cell, (row + 1) * cell), fill=WALL)
        if row + 1 < side and (place, place + side) not in problem.passages:
            canvas.line((column * cell, (row + 1) * cell, (column + 1) * cell, (row + 1) * cell), fill=WALL)
    return image


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2): the cells of the way, or a guess."""
    seen = " ".join(drawn.cell_name(place, problem.side) for place in problem.way)
    return drawn.answered(rng, looks, seen, problem.answer, list(map(str, range(1, 9))))


def _tree(rng: Random, side: int) -> frozenset[tuple[int, int]]:
    """Passages that lead to every cell in one way, by a walk that turns back where it finds nothing new."""
    passages, walk, seen = set[tuple[int, int]](), [0], {0}
    while walk:
        new = [each for each in _neighbours(walk[-1], side) if each not in seen]
        if not new:
            walk.pop()
            continue
        chosen = rng.choice(new)
        passages.add((min(walk[-1], chosen), max(walk[-1], chosen)))
        seen.add(chosen)
        walk.append(chosen)
    return frozenset(passages)


def _ways(start: int, side: int, passages: frozenset[tuple[int, int]]) -> dict[int, tuple[int, ...]]:
    """The way from a cell to each, through passages."""
    ways: dict[int, tuple[int, ...]] = {start: (start,)}
    waiting = [start]
    for place in waiting:
        for each in _neighbours(place, side):
            if each not in ways and (min(place, each), max(place, each)) in passages:
                ways[each] = (*ways[place], each)
                waiting.append(each)
    return ways


def _neighbours(place: int, side: int) -> list[int]:
    row, column = divmod(place, side)
    found = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return [r * side + c for r, c in found if 0 <= r < side and 0 <= c < side]
