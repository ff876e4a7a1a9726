"""The interface of an objective: it turns a scored group into advantages, and a packed row of tokens into a loss.

Shapes: S tokens in the loss, of n sequences. Log-probabilities are in nats.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from perilune.objectives.shaping import Response, shaped_rewards
from perilune.table import Table

if TYPE_CHECKING:
    from torch import Tensor

    from perilune.recipe import RewardTable

Need = Literal["iteration", "frozen", "behaviour", "teacher", "teacher_kl"]
"""Log-probabilities that a row holds beside those of the policy that is trained.

iteration   of the policy that opened the iteration
frozen      of a policy that stays as it is: version 0 of the run, or the model that `frozen_path` names
behaviour   with which the engine drew the tokens
teacher     of the run's teacher
teacher_kl  not a log-probability: the policy's KL divergence from the teacher at each token's place
"""

Advantage = float | Sequence[float]

ITERATION: frozenset[Need] = frozenset({"iteration"})


@dataclass(frozen=True)
class LossRow:
    """One packed row, token by token. What the objective does not need is None."""

    policy_S: Tensor  # log π_θ of each token, with its gradient
    reference_S: Tensor | None  # log π_i, of the policy that opened the iteration
    behaviour_S: Tensor | None  # what the engine drew the token with
    advantage_S: Tensor
    sequence_S: Tensor  # which of the n sequences each token belongs to; every sequence has at least one
    weight_n: Tensor  # of each sequence in its step: 1 / (groups × samples of its group)
    frozen_S: Tensor | None = None  # of the frozen policy
    num_step_tokens: int = 0  # in the loss, of all rows of the step: what a mean over tokens divides by
    max_tokens: int = 0  # that a response may have: rollout.max_tokens
    teacher_S: Tensor | None = None  # of the teacher
    teacher_kl_S: Tensor | None = None  # KL(μ ‖ π_T) where each token was drawn, μ the version that wrote it

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
        return self.sums(values_S) / self.sums(values_S.new_ones(values_S.shape))

    def of_sequences(self, values_S: Tensor) -> Tensor:
        """The one value that all tokens of a sequence have, shape (n,)."""
        return values_S.new_zeros(len(self.weight_n)).index_copy(0, self.sequence_S, values_S)


class Loss(NamedTuple):
    """A row's part of its step's loss, and values for `Objective.metrics`, by name."""

    total: Tensor
    observed: Mapping[str, Tensor] = {}


class Objective(Table):
    """Base of all objectives. A subclass's fields are the keys of `[trainer.objective]`, with `type` for its name."""

    type: str

    @property
    def needs(self) -> frozenset[Need]:
        """The log-probabilities that a row must have."""
        return ITERATION

    @property
    def frozen_path(self) -> str | None:
        """The frozen policy as `model.path` names one: the key `frozen_model`, of an objective that has it.

        None for version 0 of the run.
        """
        return getattr(self, "frozen_model", None)

    @property
    def looks_at_step(self) -> bool:
        """Tests whether `for_step` must be called with all of a step's tokens before the first row's loss."""
        return False

    def rewards(self, responses: Sequence[Response], table: RewardTable, iteration: int) -> list[float]:
        """The rewards of one group, from its scores; the trainer trains on them, the master judges groups by them.

        Args:
            iteration: that trains on them; it decides the length reward's warm-up.
        """
        return shaped_rewards(responses, table, iteration)

    def prefers(self, rewards: Sequence[float]) -> bool:
        """Tests whether a group with these rewards says what is better; the others are left out if the recipe wants
        that.

        All advantages are zero where it does not.
        """
        return len(set(rewards)) > 1

    @abstractmethod
    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> Sequence[Advantage]:
        """The advantage of each response of one group: a number for all of its tokens in the loss, or one for each.

        Args:
            rewards: as `rewards` gives them.
            num_tokens: of each response, how many are in the loss.
        """

    def for_step(self, reference_S: Tensor, behaviour_S: Tensor) -> Self:
        """The objective of one step, with all of its tokens, where it depends on them."""
        return self

    @abstractmethod
    def loss(self, row: LossRow) -> Loss:
        """The row's part of the loss that is descended: the sum over its sequences, each with its weight."""

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """An iteration's metrics from the values that its rows' losses gave; only those names that have values."""
        return {}
