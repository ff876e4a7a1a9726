"""Grids of known puzzles: reasoning-gym makes them, and here they are drawn, with a question that has one short answer.

question   Complete the sudoku. Which number belongs into cell b3? Columns are … End with answer: and a number.
response   2 _ _ 3 / _ _ 1 _ / 1 _ 3 _ / 3 _ 2 1 answer: 2
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from perilune.errors import MissingDependencyError
from perilune.images.drawing import COLOURS, blank, draw_grid, draw_word
from perilune.tasks import drawn

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = 16
EMPTY, WALL, START, GOAL, LAND = "_", "#", "S", "G", "L"  # of cells; digits are themselves
_FILLS = {WALL: "black", START: "green", GOAL: "red", LAND: "yellow"}
COLUMNS = "abcdefghijklmnop"


@dataclass(frozen=True)
class Problem:
    """A grid, and a question about it."""

    puzzle: str
    grid: tuple[str, ...]  # rows, each cell a sign
    asks: str
    answer: str
    difficulty: int
    cell: int  # pixels

    @property
    def labels(self) -> dict[str, str]:
        """Its difficulty, in cells that are empty, steps or cells of land."""
        return {"difficulty": str(self.difficulty), "kind": self.puzzle}

    @property
    def content(self) -> str:
        """A text of all that it shows and asks."""
        return f"{self.asks} {self.grid}"


Made = tuple[tuple[str, ...], str, str, int]  # grid, question, answer, difficulty


def _sudoku(entry: dict[str, Any], rng: Random) -> Made:
    puzzle, solution = entry["metadata"]["puzzle"], entry["metadata"]["solution"]
    grid = tuple("".join(str(each) if each else EMPTY for each in row) for row in puzzle)
    empty = [(r, c) for r, row in enumerate(grid) for c, sign in enumerate(row) if sign == EMPTY]
    row, column = rng.choice(empty)
    side = len(grid)
    return (
        grid,
        f"Complete the sudoku. Which number belongs into cell {COLUMNS[column]}{row + 1} ? Columns are "
        f"{' '.join(COLUMNS[:side])} from the left, rows 1 to {side} from the top.",
        str(solution[row][column]),
        len(empty),
    )


def _maze(entry: dict[str, Any], rng: Random) -> Made:
    about = entry["metadata"]
    signs = {about["wall"]: WALL, about["path"]: EMPTY, about["start"]: START, about["goal"]: GOAL}
    grid = tuple("".join(signs[each] for each in row) for row in about["grid"])
    asks = "How many steps lead from the green cell to the red one, around the walls?"
    return grid, asks, str(entry["answer"]), int(entry["answer"])


def _island(entry: dict[str, Any], rng: Random) -> Made:
    grid = tuple("".join(LAND if each else EMPTY for each in row) for row in entry["metadata"]["grid"])
    asks = "Of how many cells is the largest island, whose cells touch along their sides?"
    return grid, asks, str(entry["answer"]), 1 + sum(row.count(LAND) for row in grid)


PUZZLES: dict[str, Callable[[dict[str, Any], Random], Made]] = {
    "mini_sudoku": _sudoku,
    "maze": _maze,
    "largest_island": _island,
}
_TEXTS = (
    f"Complete the sudoku. Which number belongs into cell ? Columns are {' '.join(COLUMNS)} from the left, rows 1 to "
    "from the top. How many steps lead from the green cell to the red one, around the walls? Of how many cells is the "
    f"largest island, whose cells touch along their sides? {drawn.SAY_ANSWER} a number. / {' '.join(_FILLS)} {EMPTY}"
)
VOCABULARY = tuple(
    dict.fromkeys(
        [
            *_TEXTS.split(),
            *(f"{column}{row}" for column in COLUMNS for row in range(1, 17)),
            *map(str, range(101)),
        ]
    )
)


def problem(seed: int, index: int, *, held_out: bool = False, puzzle: str = "mini_sudoku", cell: int = CELL) -> Problem:
    """Problem `index` of the endless set `seed`.

    ValueError: no such puzzle or cells. MissingDependencyError: reasoning-gym is not installed.
    """
    if puzzle not in PUZZLES:
        raise ValueError(f"there is no puzzle {puzzle!r}; known are {', '.join(PUZZLES)}")
    if not 12 <= cell <= 128:
        raise ValueError(f"cell must be 12 to 128 pixels, and is {cell}")

    def make(rng: Random) -> Problem:
        grid, asks, answer, difficulty = PUZZLES[puzzle](_entry(puzzle, rng.randrange(2**31)), rng)
        return Problem(puzzle, grid, asks, answer, difficulty, cell)

    return drawn.problem_at(seed, index, held_out, make)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return f"{problem.asks} {drawn.SAY_ANSWER} a number."


def draw(problem: Problem) -> Image:
    """The picture: a grid with digits, or with cells in colour."""
    height, width, cell = len(problem.grid), len(problem.grid[0]), problem.cell
    image, canvas = blank(width * cell + 1, height * cell + 1)
    for row, signs in enumerate(problem.grid):
        for column, sign in enumerate(signs):
            left, top = column * cell, row * cell
            if sign in _FILLS:
                canvas.rectangle((left, top, left + cell, top + cell), fill=COLOURS[_FILLS[sign]])
            elif sign != EMPTY:
                centre = (left + cell / 2 + 0.5, top + cell / 2 + 0.5)
                draw_word(canvas, sign, centre, cell * 3 // 4, COLOURS["black"])
    draw_grid(canvas, width, height, cell)
    return image


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2): the grid by rows, or a guess."""
    seen = " / ".join(" ".join(row) for row in problem.grid)
    return drawn.answered(rng, looks, seen, problem.answer, list(map(str, range(1, 10))))


def _entry(puzzle: str, seed: int) -> dict[str, Any]:
    try:
        import reasoning_gym
    except ImportError as error:
        raise MissingDependencyError("the task puzzles needs `pip install reasoning-gym`") from error
    entry: dict[str, Any] = reasoning_gym.create_dataset(puzzle, size=1, seed=seed)[0]
    return entry
