"""Charts to read: bars of different colours, asked about in three ways.

question   How high is the blue bar? End with answer: and a number.
response   red 3 blue 5 green 1 answer: 5
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from perilune.images.drawing import COLOURS, GRID, blank
from perilune.tasks import drawn

if TYPE_CHECKING:
    from PIL.Image import Image

HIGHEST, UNIT = 7, 4
MIN_BARS, MAX_BARS = 2, 4
KINDS = ("value", "highest", "difference")
VOCABULARY = (
    *("How", "high", "is", "the", "bar?", "Which", "bar", "the", "highest?", "much", "higher", "than"),
    *("End", "with", "and", "a", "number.", "colour.", "answer:", *COLOURS),
    *map(str, range(HIGHEST + 1)),
)
VOCABULARY = tuple(dict.fromkeys(VOCABULARY))


@dataclass(frozen=True)
class Problem:
    """Bars from the left, all of different heights, and what is asked of them."""

    bars: tuple[tuple[str, int], ...]  # colour and height
    kind: str
    colours: tuple[str, ...]  # that are asked about
    unit: int  # pixels of a height of one

    @property
    def answer(self) -> str:
        """A height, a colour, or a difference of heights."""
        heights = dict(self.bars)
        match self.kind:
            case "value":
                return str(heights[self.colours[0]])
            case "highest":
                return max(heights, key=heights.__getitem__)
        return str(heights[self.colours[0]] - heights[self.colours[1]])

    @property
    def labels(self) -> dict[str, str]:
        """Its difficulty: the number of bars; one more for differences."""
        return {"difficulty": str(len(self.bars) + (self.kind == "difference")), "kind": f"charts {self.kind}"}

    @property
    def content(self) -> str:
        """A text of all that it shows and asks."""
        return f"{self.kind} {self.colours}: {self.bars}"


def problem(
    seed: int,
    index: int,
    *,
    held_out: bool = False,
    min_bars: int = MIN_BARS,
    max_bars: int = MAX_BARS,
    kinds: str = " ".join(KINDS),
    unit: int = UNIT,
) -> Problem:
    """Problem `index` of the endless set `seed`. ValueError: options that do not fit."""
    names = drawn.names_of(kinds, KINDS)
    drawn.check_range("bars", min_bars, max_bars, least=2, most=len(COLOURS))
    if not 3 <= unit <= 128:
        raise ValueError(f"unit must be 3 to 128 pixels, and is {unit}")

    def make(rng: Random) -> Problem:
        size, kind = rng.randint(min_bars, max_bars), rng.choice(names)
        bars = list(zip(rng.sample(list(COLOURS), size), rng.sample(range(1, HIGHEST + 1), size), strict=True))
        asked = rng.sample(bars, {"value": 1, "highest": 0, "difference": 2}[kind])
        asked.sort(key=lambda bar: -bar[1])
        return Problem(tuple(bars), kind, tuple(colour for colour, _ in asked), unit)

    return drawn.problem_at(seed, index, held_out, make)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    match problem.kind:
        case "value":
            return f"How high is the {problem.colours[0]} bar? {drawn.SAY_ANSWER} a number."
        case "highest":
            return f"Which bar is the highest? {drawn.SAY_ANSWER} a colour."
    higher, lower = problem.colours
    return f"How much higher is the {higher} bar than the {lower} bar? {drawn.SAY_ANSWER} a number."


def draw(problem: Problem) -> Image:
    """The picture: bars over a line, and a thin line at every unit of height."""
    side = (HIGHEST + 1) * problem.unit
    image, canvas = blank(side, side)
    for height in range(1, HIGHEST + 1):
        canvas.line((0, side - 1 - height * problem.unit, side, side - 1 - height * problem.unit), fill=GRID)
    step = side // len(problem.bars)
    for place, (colour, height) in enumerate(problem.bars):
        left = place * step + step // 6
        canvas.rectangle(
            (left, side - 1 - height * problem.unit, left + step * 2 // 3 - 1, side - 2), fill=COLOURS[colour]
        )
    canvas.line((0, side - 1, side, side - 1), fill=COLOURS["black"])
    return image


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2): all bars, or a guess."""
    seen = " ".join(f"{colour} {height}" for colour, height in problem.bars)
    guesses = list(COLOURS) if problem.kind == "highest" else list(map(str, range(1, HIGHEST + 1)))
    return drawn.answered(rng, looks, seen, problem.answer, guesses)
