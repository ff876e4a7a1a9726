"""Problems of Perilune's own generators (perilune/tasks): made when they are asked for, by seed and index."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError, NotFoundError
from perilune.recipe import Options, TaskPrompts
from perilune.tasks import Task, find_task
from services.master.prompts.prompt import digest_of, make_prompt

NUM_DIGESTED = 256  # problems that stand for an endless set


@dataclass(frozen=True)
class GeneratedPrompts:
    """Prompts of a generator of problems, made as they are drawn."""

    task: Task
    seed: int
    num_train: int
    num_heldout: int
    options: Options
    notes: Sequence[str] = ()

    @property
    def digest(self) -> str:
        """Of some of the problems, from the first to the last."""
        train = [self.train(index) for index in _spread(self.num_train)]
        return digest_of([*train, *(self.heldout(index) for index in _spread(self.num_heldout))])

    def train(self, index: int) -> Prompt:
        """The training prompt of an index."""
        return self._prompt(index, held_out=False)

    def heldout(self, index: int) -> Prompt:
        """The held-out prompt of an index."""
        return self._prompt(index, held_out=True)

    def _prompt(self, index: int, *, held_out: bool) -> Prompt:
        problem = self.task.problem(self.seed, index, held_out=held_out, **self.options)
        return make_prompt(self.task.question(problem), problem.answer)


def open_prompts(table: TaskPrompts, seed: int) -> GeneratedPrompts:
    """The task's endless set. InvalidInputError: no such task, or options that it does not take."""
    try:
        task = find_task(table.name)
    except NotFoundError as error:
        raise InvalidInputError(f"prompts.name: {error}") from error
    _check_options(task, table)
    return GeneratedPrompts(task, seed, table.num_train, table.num_heldout, table.options)


def _check_options(task: Task, table: TaskPrompts) -> None:
    known = [name for name in inspect.signature(task.problem).parameters if name not in ("seed", "index", "held_out")]
    unknown = [name for name in table.options if name not in known]
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise InvalidInputError(f"prompts.options: {table.name} has no option {unknown[0]!r}; {takes}")
    try:
        task.problem(0, 0, **table.options)  # type: ignore[arg-type]  # checked by calling it
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"prompts.options do not fit task {table.name!r}: {error}") from error


def _spread(size: int) -> list[int]:
    """Some indices of so many, from the first to the last."""
    return sorted({place * (size - 1) // (NUM_DIGESTED - 1) for place in range(NUM_DIGESTED)})
