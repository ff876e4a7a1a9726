"""Problems of Perilune's own generators (perilune/tasks): made when they are asked for, by seed and index."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError, NotFoundError
from perilune.recipe import Options, TaskPrompts
from perilune.tasks import Problem, Task, content_of, find_task, images_of, labels_of
from services.master.prompts.prompt import digest_of, make_prompt, parts_by_digest, spread

NUM_DIGESTED = 256  # problems that stand for an endless set


@dataclass(frozen=True)
class GeneratedPrompts:
    """Prompts of a generator of problems, made as they are drawn."""

    task: Task
    seed: int
    num_train: int
    num_heldout: int
    options: Options
    noise: float = 0.0
    notes: Sequence[str] = ()

    @property
    def digest(self) -> str:
        """Of some of the problems, from the first to the last."""
        train = [self.train(index) for index in spread(self.num_train, NUM_DIGESTED)]
        return digest_of([*train, *(self.heldout(index) for index in spread(self.num_heldout, NUM_DIGESTED))])

    def train(self, index: int) -> Prompt:
        """The training prompt of an index."""
        return self._prompt(index, held_out=False)

    def heldout(self, index: int) -> Prompt:
        """The held-out prompt of an index."""
        return self._prompt(index, held_out=True)

    def labels(self, index: int) -> Mapping[str, str]:
        """The labels of a training problem; nothing is drawn for them."""
        return labels_of(self._problem(index, held_out=False))

    def drawn_images(self, index: int, *, held_out: bool) -> Sequence[bytes]:
        """The images of a problem, drawn again: the same problem is the same bytes."""
        return images_of(self.task, self._problem(index, held_out=held_out), self.noise)

    def _problem(self, index: int, *, held_out: bool) -> Problem:
        return self.task.problem(self.seed, index, held_out=held_out, **self.options)

    def _prompt(self, index: int, *, held_out: bool) -> Prompt:
        problem = self._problem(index, held_out=held_out)
        return make_prompt(
            _question(content_of(self.task, problem, self.noise)), problem.answer, labels=labels_of(problem)
        )


def open_prompts(table: TaskPrompts, seed: int) -> GeneratedPrompts:
    """The task's endless set. InvalidInputError: no such task, or options that it does not take."""
    try:
        task = find_task(table.name)
    except NotFoundError as error:
        raise InvalidInputError(f"prompts.name: {error}") from error
    _check_options(task, table)
    return GeneratedPrompts(task, seed, table.num_train, table.num_heldout, table.options, table.noise)


def _question(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A problem's text; or the user's message, in which images are named by their digests."""
    return content if isinstance(content, str) else [{"role": "user", "content": parts_by_digest(content)}]


def _check_options(task: Task, table: TaskPrompts) -> None:
    known = [name for name in inspect.signature(task.problem).parameters if name not in ("seed", "index", "held_out")]
    unknown = [name for name in table.options if name not in known]
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise InvalidInputError(f"prompts.options: {table.name} has no option {unknown[0]!r}; {takes}")
    try:
        images_of(task, task.problem(0, 0, **table.options))  # type: ignore[arg-type]  # checked by calling it
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"prompts.options do not fit task {table.name!r}: {error}") from error
