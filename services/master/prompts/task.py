"""Problems of Perilune's own generators (perilune/tasks): made when they are asked for, by seed and index."""

from __future__ import annotations

from dataclasses import dataclass

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError, NotFoundError
from perilune.recipe import TaskPrompts
from perilune.tasks import Task, find_task
from services.master.prompts.prompt import make_prompt


@dataclass(frozen=True)
class GeneratedPrompts:
    task: Task
    seed: int
    num_train: int
    num_heldout: int

    def train(self, index: int) -> Prompt:
        return self._prompt(index, held_out=False)

    def heldout(self, index: int) -> Prompt:
        return self._prompt(index, held_out=True)

    def _prompt(self, index: int, *, held_out: bool) -> Prompt:
        problem = self.task.problem(self.seed, index, held_out=held_out)
        return make_prompt(self.task.question(problem), problem.answer)


def open_prompts(table: TaskPrompts, seed: int) -> GeneratedPrompts:
    try:
        return GeneratedPrompts(find_task(table.name), seed, table.num_train, table.num_heldout)
    except NotFoundError as error:
        raise InvalidInputError(f"prompts.name: {error}") from error
