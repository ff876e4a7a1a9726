"""Says what a stage is to its runner: so many steps, the gradient of each, and what is measured in between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch.optim import AdamW, Optimizer

from perilune.recipe import StageBase
from services.trainer import optimization
from services.trainer.policy.model import Policy

BETAS, WEIGHT_DECAY, MAX_GRAD_NORM = (0.9, 0.95), 0.01, 1.0  # of reward models


class _Trainer(Protocol):
    @property
    def microbatch_tokens(self) -> int | Literal["auto"]:
        """Tokens of a pass."""

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """bf16: autocast over fp32 weights."""


class Setting(Protocol):
    """Describes what a stage takes from its recipe beside its own table: a `Recipe`, or a plan of stages alone."""

    @property
    def seed(self) -> int:
        """Decides orders and draws."""

    @property
    def trainer(self) -> _Trainer:
        """Returns how passes are made."""


@dataclass(frozen=True)
class Generated:
    """Describes what the policy answers to a held-out prompt."""

    prompt: str
    response: str
    reference: str  # the example's own response


@dataclass(frozen=True)
class Measured:
    """Describes what is measured between two steps."""

    metrics: dict[str, float] = field(default_factory=dict)
    generated: list[Generated] = field(default_factory=list)


class Stage(ABC):
    """Optimiser steps on one policy. What step n sees depends on the recipe and on n alone: a step can be repeated."""

    def __init__(self, table: StageBase, policy: Policy, recipe: Setting) -> None:
        """`recipe`: for its seed, and for how a pass is made."""
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

    @property
    def num_steps(self) -> int:
        """The stage's steps; known once `check` has looked at its data."""
        return self.table.num_steps

    def measure(self, step: int) -> Measured:
        """Measures the policy after a step, from 0, where that is due."""
        return Measured()

    def optimizer(self) -> Optimizer:
        """Makes the optimiser of what the policy trains: all of it, or its adapters."""
        trained = [parameter for parameter in self.policy.model.parameters() if parameter.requires_grad]
        table = self.table
        return AdamW(trained, table.learning_rate, betas=table.betas, weight_decay=table.weight_decay, fused=True)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        return optimization.stage_learning_rate(self.table.learning_rate, step, self.num_steps, self.table)
