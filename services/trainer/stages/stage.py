"""What a stage is to its runner: so many steps, and the gradient of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch.optim import AdamW, Optimizer

from perilune.recipe import Recipe, StageBase
from services.trainer import optimization
from services.trainer.policy.model import Policy

BETAS, WEIGHT_DECAY, MAX_GRAD_NORM = (0.9, 0.95), 0.01, 1.0


class Stage(ABC):
    """Optimiser steps on one policy. What step n sees depends on the recipe and on n alone: a step can be repeated."""

    def __init__(self, table: StageBase, policy: Policy, recipe: Recipe) -> None:
        """`recipe`: for its seed, and for how many tokens a pass may have."""
        self.table = table
        self.policy = policy
        self.recipe = recipe

    def check(self, should_stop: Callable[[], bool]) -> None:  # noqa: B027 - not all have data to look at
        """Looks at the stage's data before its first step.

        Raises:
            InterruptedTraining: should_stop said so.
            InvalidInputError, NotFoundError, RecipeError: data that it cannot use.
        """

    def reference(self) -> Any:
        """Makes what steps compare with, from the policy as it is before the first one; None if they compare with none.

        It is kept with the stage's progress: tensors, and lists and mappings of them.
        """
        return None

    @abstractmethod
    def accumulate(self, step: int, reference: Any) -> dict[str, float]:
        """Adds the gradient of a step, from 0, to the policy's parameters.

        Returns:
            Metrics: `loss`, `num_tokens` (that went through the policy), and what else there is to show.
        """

    def optimizer(self) -> Optimizer:
        """Makes the optimiser of what the policy trains: all of it, or its adapters."""
        trained = [parameter for parameter in self.policy.model.parameters() if parameter.requires_grad]
        rate = self.table.learning_rate
        return AdamW(trained, lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        return optimization.stage_learning_rate(self.table.learning_rate, step, self.table.num_steps)
