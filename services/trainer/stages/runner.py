"""The steps of stages, one after the other: kept on disk as they go on, and reported."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from perilune.recipe import StageTable
from services.trainer import optimization
from services.trainer.learner import InterruptedTraining, never
from services.trainer.policy.model import Policy
from services.trainer.stages import make_stage
from services.trainer.stages.progress import Progress, ProgressFile
from services.trainer.stages.stage import Generated, Setting, Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageStep:
    """A step that was taken."""

    name: str  # the stage's type
    index: int  # its place in the recipe
    step: int  # from 1
    num_steps: int
    metrics: dict[str, float]
    generated: list[Generated] = field(default_factory=list)


OnStep = Callable[[StageStep], None]
MakeStage = Callable[[int, Any, Policy, Setting], Stage]  # of its place in the recipe, and its table


def unheard(step: StageStep) -> None:
    """Reports to no one."""


def _of_recipe(_: int, table: StageTable, policy: Policy, recipe: Setting) -> Stage:
    return make_stage(table, policy, recipe)


def run_stages(
    stages: Sequence[tuple[int, StageTable]],
    policy: Policy,
    recipe: Setting,
    file: ProgressFile | None = None,
    should_stop: Callable[[], bool] = never,
    on_step: OnStep = unheard,
    make: MakeStage = _of_recipe,
) -> dict[str, float]:
    """Trains the policy in place by one stage after the other, from where they were left.

    Args:
        stages: each with its place in the recipe.
        file: where progress is kept; if not given, nowhere.
        should_stop: asked before every step.
        on_step: called after every step.
        make: makes a stage of its table.

    Returns:
        Metrics: `TYPE_loss`, that of each stage's last step, and `stage_tokens`, that went through the policy in all.

    Raises:
        InterruptedTraining: should_stop said so; what was done is kept.
        RecipeError, NotFoundError, InvalidInputError: a stage's data cannot be made or read, or is too long.
        DivergedError: a gradient is not finite.
        StateError: progress cannot be written.
    """
    file = file or ProgressFile()
    progress = file.load()
    left = [(index, table) for index, table in stages if progress is None or index >= progress.index]
    runs = [
        _StageRun(index, table, make(index, table, policy, recipe), policy, file, should_stop, on_step)
        for index, table in left
    ]
    for run in runs:
        run.stage.check(should_stop)  # all of them, before the time that the first one takes
    metrics = progress.metrics if progress else {}
    while runs:
        run = runs.pop(0)  # its optimiser's state goes before the next one's comes
        metrics = run.steps(progress if progress and progress.index == run.index else None, metrics)
    return metrics


class _StageRun:
    """The steps of one stage."""

    def __init__(
        self,
        index: int,
        table: StageTable,
        stage: Stage,
        policy: Policy,
        file: ProgressFile,
        should_stop: Callable[[], bool],
        on_step: OnStep,
    ) -> None:
        self.index, self._table, self._policy, self._file = index, table, policy, file
        self._should_stop, self._on_step = should_stop, on_step
        self.stage, self._optimizer = stage, stage.optimizer()

    def steps(self, progress: Progress | None, metrics: dict[str, float]) -> dict[str, float]:
        """Takes the steps that are left; returns the metrics, those of this stage among them."""
        if progress:
            self._policy.model.load_state_dict(progress.model)
            self._optimizer.load_state_dict(progress.optimizer)
            logger.info("going on with stage %d, %s, after step %d", self.index, self._table.type, progress.step)
        reference = progress.reference if progress else self.stage.reference()
        first = progress.step if progress else 0
        follows = progress is None and bool(metrics)  # another stage, whose end is not kept yet
        for step in range(first, self.stage.num_steps):
            is_stopped = self._should_stop()
            if (follows or step > first) and (is_stopped or step % self._table.checkpoint_every == 0):
                self._keep(step, reference, metrics)
            if is_stopped:
                raise InterruptedTraining
            observed = self._step(step, reference)
            num_tokens = metrics.get("stage_tokens", 0.0) + observed["num_tokens"]
            metrics = metrics | {f"{self._table.type}_loss": observed["loss"], "stage_tokens": num_tokens}
        return metrics

    def _step(self, step: int, reference: object) -> dict[str, float]:
        """One step, reported; returns what the stage says of it."""
        started = time.perf_counter()
        observed = self.stage.accumulate(step, reference)
        rate = self.stage.learning_rate(step)
        norm = optimization.step(self._optimizer, rate, self._table.max_grad_norm).item()
        speed = observed["num_tokens"] / (time.perf_counter() - started)
        measured = self.stage.measure(step)
        shown = {**observed, "learning_rate": rate, "grad_norm": norm, "tokens_per_second": speed, **measured.metrics}
        step_taken = StageStep(self._table.type, self.index, step + 1, self.stage.num_steps, shown, measured.generated)
        self._on_step(step_taken)
        return observed

    def _keep(self, step: int, reference: object, metrics: dict[str, float]) -> None:
        model, optimizer = self._policy.model.state_dict(), self._optimizer.state_dict()
        self._file.save(Progress(self._file.start, self.index, step, model, optimizer, reference, metrics))
