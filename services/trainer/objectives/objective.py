"""What an objective is to the learner: it turns a group's rewards into advantages, and a packed row into a loss.

Shapes: S tokens in the loss, of n sequences. Log-probabilities are in nats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Reference = Literal["iteration", "none"]  # the policy that the iteration opened with


@dataclass(frozen=True)
class LossRow:
    """One packed row, token by token."""

    policy_S: Tensor  # log π_θ of each token, with its gradient
    reference_S: Tensor | None  # log π_i; None for an objective that needs no reference
    behaviour_S: Tensor | None  # what the engine drew the token with; None for an objective that does not need it
    advantage_S: Tensor
    sequence_S: Tensor  # which of the n sequences each token belongs to; every sequence has at least one
    weight_n: Tensor  # of each sequence in its step: 1 / (groups × samples of its group)

    @property
    def log_ratio_S(self) -> Tensor:
        """log π_θ/π_i of each token, with its gradient."""
        assert self.reference_S is not None
        return self.policy_S - self.reference_S

    def sums(self, values_S: Tensor) -> Tensor:
        """The sum over each sequence, shape (n,)."""
        return values_S.new_zeros(len(self.weight_n)).index_add(0, self.sequence_S, values_S)

    def means(self, values_S: Tensor) -> Tensor:
        """The mean over each sequence, shape (n,)."""
        return self.sums(values_S) / self.sums(torch.ones_like(values_S))

    def of_sequences(self, values_S: Tensor) -> Tensor:
        """The one value that all tokens of a sequence have, shape (n,)."""
        return values_S.new_zeros(len(self.weight_n)).index_copy(0, self.sequence_S, values_S)


class Loss(NamedTuple):
    """What a row adds to its step's loss, and what `Objective.metrics` is to see of it, by name."""

    total: Tensor
    observed: Mapping[str, Tensor] = {}


class Objective(ABC):
    """A kind of objective is one file with a subclass, and one row of `OBJECTIVES`. Objects of it do not change."""

    reference: Reference = "iteration"

    @property
    def needs_behaviour(self) -> bool:
        """Whether a row must have what its tokens were drawn with."""
        return False

    @property
    def looks_at_step(self) -> bool:
        """Whether `for_step` must be called with all of a step's tokens before the first row's loss."""
        return False

    @abstractmethod
    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[Tensor]:
        """The advantage of each token in the loss, response by response of one group.

        All zero where the rewards are all equal: such groups may be left out before they get here.

        Args:
            rewards: what `perilune.rewards` makes of the scores.
            num_tokens: of each response, how many are in the loss.
        """

    def for_step(self, reference_S: Tensor, behaviour_S: Tensor) -> Objective:
        """The objective of one step, with all of its tokens, where it depends on them."""
        return self

    @abstractmethod
    def loss(self, row: LossRow) -> Loss:
        """What the row adds to the loss that is descended: the sum over its sequences, each with its weight."""

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """An iteration's metrics from what its rows let be observed; only those names that have values."""
        return {}


def spread(values: Sequence[float], num_tokens: Sequence[int]) -> list[Tensor]:
    """Each response's value at every one of its tokens."""
    return [torch.full((count,), value) for value, count in zip(values, num_tokens, strict=True)]
