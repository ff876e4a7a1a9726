"""The samples of one optimiser step: their advantages and weights, packed into rows, each a row of the objective's.

Shapes: S tokens in the loss of one row, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perilune.errors import InvalidInputError
from perilune.objectives.objective import Advantage, LossRow, Objective
from perilune.objectives.shaping import Response
from perilune.recipe import Recipe
from services.trainer.batch import TrainingGroup, TrainingSample
from services.trainer.policy.packing import PackedRow, pack_rows
from services.trainer.ranks.group import Ranks


@dataclass(frozen=True)
class Minibatch:
    """The samples of one optimiser step, packed, with what the loss needs of each."""

    samples: list[TrainingSample]  # those with tokens in the loss
    advantages: list[Tensor]  # of each sample's tokens in the loss
    weights_N: Tensor  # 1 / (groups in the step × samples in the group): the loss is the weighted sum
    rows: list[PackedRow]  # this rank's
    behaviour: list[Tensor]  # for each row what its scored tokens were drawn with, shape (S,); where that is needed
    idle: PackedRow | None = None  # passed through for nothing, where other ranks have a row more

    def current_logprobs(self, row: PackedRow) -> NDArray[np.float32]:
        """The engine's log-probabilities of a row's scored tokens under the version that opened the iteration,
        shape (S,); NaN for tokens of older versions and where it gave none."""
        samples = [self.samples[index] for index in row.indices]
        return np.concatenate([sample.current_logprobs[sample.in_loss] for sample in samples])

    def loss_row(
        self, number: int, policy_S: Tensor, reference_S: Tensor | None, frozen_S: Tensor | None = None
    ) -> LossRow:
        """A row as the objective takes it."""
        row = self.rows[number]
        return LossRow(
            policy_S,
            reference_S,
            self.behaviour[number] if self.behaviour else None,
            torch.cat([self.advantages[index] for index in row.indices]),
            row.sequence_S,
            self.weights_N[row.indices],
            frozen_S,
        )


def make_minibatch(groups: Sequence[TrainingGroup], recipe: Recipe, iteration: int, ranks: Ranks) -> Minibatch:
    """The groups of one step. InvalidInputError where the objective needs log-probabilities that an engine left out."""
    objective = recipe.trainer.objective
    samples = [sample for group in groups for sample in group.samples]
    advantages = [part for group in groups for part in _advantages(group, recipe, iteration)]
    weights = [1 / (len(groups) * len(group.samples)) for group in groups for _ in group.samples]
    # A sample none of whose tokens is trained on was only there to be compared with.
    used = [number for number, sample in enumerate(samples) if sample.in_loss.any()]
    samples = [samples[number] for number in used]
    rows = pack_rows(
        [sample.tokens for sample in samples], [sample.in_loss for sample in samples], recipe.trainer.microbatch_tokens
    )
    behaviour = [_behaviour(samples, row, objective) for row in rows] if "behaviour" in objective.needs else []
    mine = ranks.share(rows)
    is_short = len(mine) * ranks.size < len(rows)
    return Minibatch(
        samples=samples,
        advantages=[advantages[number] for number in used],
        weights_N=torch.tensor(weights, dtype=torch.float32, device="cpu")[used],
        rows=mine,
        behaviour=ranks.share(behaviour),
        idle=rows[-1] if is_short else None,  # the last one has the fewest tokens
    )


def _advantages(group: TrainingGroup, recipe: Recipe, iteration: int) -> list[Tensor]:
    num_tokens = [int(sample.in_loss.sum()) for sample in group.samples]
    advantages = recipe.trainer.objective.advantages(rewards_of(group, recipe, iteration), num_tokens)
    return [_of_tokens(advantage, count) for advantage, count in zip(advantages, num_tokens, strict=True)]


def _of_tokens(advantage: Advantage, num_tokens: int) -> Tensor:
    """The advantage of each token of a response, shape (num_tokens,)."""
    per_token = torch.as_tensor(advantage, dtype=torch.float32, device="cpu")
    return per_token.expand(num_tokens) if per_token.ndim == 0 else per_token


def rewards_of(group: TrainingGroup, recipe: Recipe, iteration: int) -> list[float]:
    """The rewards of a group's samples, as the recipe's objective has them at this iteration."""
    responses = [
        Response(sample.score, sample.num_response_tokens, sample.correct, sample.repeated) for sample in group.samples
    ]
    return recipe.trainer.objective.rewards(responses, recipe.reward, iteration)


def _behaviour(samples: Sequence[TrainingSample], row: PackedRow, objective: Objective) -> Tensor:
    """The log-probabilities that a row's scored tokens were drawn with, shape (S,)."""
    parts = []
    for index in row.indices:
        sample = samples[index]
        known = None if sample.behaviour_logprobs is None else sample.behaviour_logprobs[sample.in_loss]
        if known is None or np.isnan(known).any():
            raise InvalidInputError(
                f"sample {sample.id} has tokens without log-probabilities, and trainer.objective (type "
                f"{objective.type!r}) as it is set needs them; use an engine that gives them"
            )
        parts.append(known)
    return torch.from_numpy(np.concatenate(parts))
