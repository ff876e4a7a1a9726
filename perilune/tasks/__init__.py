"""Tasks whose problems are generated without end and whose answers a program can check.

A task is one file here and one row of the table.
"""

import zlib
from random import Random
from typing import Any, Protocol

from perilune.errors import NotFoundError
from perilune.images import encode_png
from perilune.images.drawing import with_noise
from perilune.tasks import (
    arithmetic,
    chains,
    charts,
    clocks,
    colours,
    counting,
    digits,
    guess,
    large_sums,
    mazes,
    patterns,
    positions,
    programs,
    puzzles,
    relations,
    search,
    seeing,
    sums,
)


class Problem(Protocol):
    """A problem with one checkable answer."""

    @property
    def answer(self) -> str:
        """The reference answer."""
        ...


class Task(Protocol):
    """A generator of problems, each of which follows from its seed and index.

    A task that draws has `draw(problem)` too, a picture that the question is about. A problem may have `labels`, such
    as its difficulty, for curricula.
    """

    VOCABULARY: tuple[str, ...]
    """Every word of a question or a trace, for a tokenizer that knows no other."""

    def problem(self, seed: int, index: int, *, held_out: bool = False) -> Problem:
        """Makes the problem at an index; held-out problems are never made for training."""

    def question(self, problem: Any) -> str:
        """Words the problem as a prompt."""

    def trace(self, problem: Any, rng: Random) -> str:
        """A reasoning trace for the warm-up (k1.5 §2.2)."""
        ...


TASKS: dict[str, Task] = {
    "arithmetic": arithmetic,
    "chains": chains,
    "charts": charts,
    "clocks": clocks,
    "colours": colours,
    "counting": counting,
    "digits": digits,
    "guess": guess,
    "large_sums": large_sums,
    "mazes": mazes,
    "patterns": patterns,
    "positions": positions,
    "programs": programs,
    "puzzles": puzzles,
    "relations": relations,
    "search": search,
    "seeing": seeing,
    "sums": sums,
}


def find_task(name: str) -> Task:
    """Finds a task by its name. NotFoundError lists the names."""
    if name not in TASKS:
        raise NotFoundError(f"there is no task {name!r}; known are {', '.join(sorted(TASKS))}")
    return TASKS[name]


def images_of(task: Task, problem: Any, noise: float = 0.0) -> list[bytes]:
    """The encoded pictures that a problem shows; none, where the task is of text alone.

    `noise`: the share of each pixel that is random; what is drawn decides how, so that a problem is always the same.
    """
    draw = getattr(task, "draw", None)
    if draw is None:
        return []
    image = draw(problem)
    return [encode_png(with_noise(image, noise, Random(zlib.crc32(image.tobytes()))))]


def content_of(task: Task, problem: Any, noise: float = 0.0) -> str | list[dict[str, Any]]:
    """The content of the user's message: the question; behind its pictures, as parts, where the task draws.

    A picture is {"type": "image", "bytes": …}, encoded. `noise`: see `images_of`.
    """
    question = task.question(problem)
    images = [{"type": "image", "bytes": data} for data in images_of(task, problem, noise)]
    return [*images, {"type": "text", "text": question}] if images else question


def labels_of(problem: Any) -> dict[str, str]:
    """The labels of a problem, such as its difficulty; of most tasks of text there are none."""
    return dict(getattr(problem, "labels", {}))
