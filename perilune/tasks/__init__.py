"""Tasks whose problems are generated without end and whose answers a program can check.

A task is one file here and one row of the table.
"""

from random import Random
from typing import Any, Protocol

from perilune.errors import NotFoundError
from perilune.tasks import arithmetic, guess, large_sums, programs, search, sums


class Problem(Protocol):
    """A problem with one checkable answer."""

    @property
    def answer(self) -> str:
        """The reference answer."""
        ...


class Task(Protocol):
    """A generator of problems, each of which follows from its seed and index."""

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
    "guess": guess,
    "large_sums": large_sums,
    "programs": programs,
    "search": search,
    "sums": sums,
}


def find_task(name: str) -> Task:
    """Finds a task by its name. NotFoundError lists the names."""
    if name not in TASKS:
        raise NotFoundError(f"there is no task {name!r}; known are {', '.join(sorted(TASKS))}")
    return TASKS[name]
