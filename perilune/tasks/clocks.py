"""Clocks with hands: which time does one show?

question   Which time does the clock show? The short hand shows the hour. End with answer: and a time such as 3:05.
response   hour 3 minute 25 answer: 3:25
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from perilune.images.drawing import COLOURS, blank
from perilune.tasks import drawn

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE, STEP = 32, 5
VOCABULARY = (
    *("Which", "time", "does", "the", "clock", "show?", "The", "short", "hand", "shows", "hour."),
    *("End", "with", "and", "a", "such", "as", "3:05.", "hour", "minute", "answer:"),
    *map(str, range(60)),
    *(f"{hour}:{minute:02}" for hour in range(1, 13) for minute in range(60)),
)
FACE = (20, 20, 20)


@dataclass(frozen=True)
class Problem:
    """A time, in minutes since noon."""

    minutes: int
    size: int  # pixels

    @property
    def hour(self) -> int:
        """The hour, 1 to 12."""
        return self.minutes // 60 or 12

    @property
    def answer(self) -> str:
        """The time, as in `3:05`."""
        return f"{self.hour}:{self.minutes % 60:02}"

    @property
    def labels(self) -> dict[str, str]:
        """Its difficulty: 1 at full hours, 2 at quarters, 3 at five minutes, 4 at others."""
        minute = self.minutes % 60
        difficulty = 1 if minute == 0 else 2 if minute % 15 == 0 else 3 if minute % 5 == 0 else 4
        return {"difficulty": str(difficulty), "kind": "clocks"}

    @property
    def content(self) -> str:
        """A text of all that it shows."""
        return self.answer


def problem(seed: int, index: int, *, held_out: bool = False, step: int = STEP, size: int = SIZE) -> Problem:
    """Problem `index` of the endless set `seed`, at every `step` minutes. ValueError: options that do not fit."""
    if not 1 <= step <= 30:
        raise ValueError(f"step must be 1 to 30 minutes, and is {step}")
    if not 24 <= size <= 1024:
        raise ValueError(f"size must be 24 to 1024 pixels, and is {size}")
    return drawn.problem_at(seed, index, held_out, lambda rng: Problem(rng.randrange(0, 720, step), size))


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return f"Which time does the clock show? The short hand shows the hour. {drawn.SAY_ANSWER} a time such as 3:05."


def draw(problem: Problem) -> Image:
    """The picture: a face with twelve marks, a short red hand for the hour and a long blue one for the minute."""
    image, canvas = blank(problem.size, problem.size)
    centre, radius = problem.size / 2 - 0.5, problem.size / 2 - 1
    canvas.ellipse((1, 1, problem.size - 2, problem.size - 2), outline=FACE)

    def point(turn: float, reach: float) -> tuple[float, float]:
        angle = 2 * math.pi * turn
        return (centre + reach * radius * math.sin(angle), centre - reach * radius * math.cos(angle))

    for mark in range(12):
        canvas.line((point(mark / 12, 0.88), point(mark / 12, 1.0)), fill=FACE)
    thick = max(1, problem.size // 32)
    middle = (centre, centre)
    canvas.line((middle, point(problem.minutes % 60 / 60, 0.8)), fill=COLOURS["blue"], width=thick)
    canvas.line((middle, point(problem.minutes / 720, 0.5)), fill=COLOURS["red"], width=2 * thick)
    return image


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2): the two hands, or a guess."""
    seen = f"hour {problem.hour} minute {problem.minutes % 60}"
    guess = Problem(rng.randrange(0, 720, STEP), problem.size).answer
    return drawn.answered(rng, looks, seen, problem.answer, [guess])
