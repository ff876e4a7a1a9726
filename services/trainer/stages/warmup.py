"""Supervised fine-tuning on a task's own reasoning traces before reinforcement learning (k1.5 §2.2)."""

from __future__ import annotations

from inspect import signature
from random import Random

from perilune.data.examples import Example, Turn, refuse_long
from perilune.errors import RecipeError
from perilune.images.rendering import drawn_content, is_drawn
from perilune.models.masking import Tokens
from perilune.recipe import WarmupStage
from perilune.tasks import content_of, find_task
from services.trainer.stages.supervised import Supervised, context_of, longest, tokens_of


class Warmup(Supervised):
    """Traces of problems 0, 1, 2 … of a task."""

    table: WarmupStage

    def batch(self, step: int) -> list[Example]:
        """The traces of a step."""
        size, seed = self.table.batch_size, self.recipe.seed
        return [
            trace(self.table, seed, number % self.table.num_examples)
            for number in range(step * size, (step + 1) * size)
        ]

    def sequences(self, step: int) -> list[Tokens]:
        """The sequences of a step's traces. InvalidInputError if one is too long."""
        found = tokens_of(self.policy, self.batch(step))
        refuse_long([longest(each) for each in found], context_of(self.policy), f"step {step + 1}")
        return [sequence for example in found for sequence in example]


def trace(table: WarmupStage, seed: int, index: int) -> Example:
    """The trace of a task's problem. RecipeError: the options do not fit the task."""
    task = find_task(table.task)
    # Options shape the problems or the traces, whichever of the two has a parameter of that name.
    for_problem = {key: value for key, value in table.options.items() if key in signature(task.problem).parameters}
    for_trace = {key: value for key, value in table.options.items() if key not in for_problem}
    try:
        problem = task.problem(seed, index, **for_problem)  # type: ignore[arg-type]  # checked by calling it
        response = task.trace(problem, Random(f"trace/{seed}/{index}"), **for_trace)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"the options of a warmup stage do not fit the task {table.task!r}: {error}") from error
    content = content_of(task, problem)
    if table.render and isinstance(content, str) and is_drawn(content, table.render):
        content = drawn_content(content, table.render)
    return (Turn([{"role": "user", "content": content}], response),)
