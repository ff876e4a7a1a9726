"""The samples of one optimiser step: their advantages and weights, packed into rows, each a row of the objective's.

Shapes: S tokens in the loss of one row, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perilune.errors import InvalidInputError
from perilune.objectives.objective import Advantage, LossRow, Objective
from perilune.objectives.shaping import Response
from perilune.recipe import Recipe
from services.trainer.batch import TeacherField, TrainingGroup, TrainingSample
from services.trainer.policy.packing import PackedRow, all_seeing, pack_row, pack_rows, plan_rows
from services.trainer.ranks.group import Ranks


@dataclass(frozen=True)
class Minibatch:
    """The samples of one optimiser step, packed, with what the loss needs of each."""

    samples: list[TrainingSample]  # those with tokens in the loss
    advantages: list[Tensor]  # of each sample's tokens in the loss
    weights_N: Tensor  # 1 / (groups in the step × samples in the group): the loss is the weighted sum
    rows: list[PackedRow]  # this rank's
    behaviour: list[Tensor]  # for each row what its scored tokens were drawn with, shape (S,); where that is needed
    teacher: list[Tensor]  # for each row the teacher's log-probabilities of its scored tokens; where they are needed
    teacher_kl: list[Tensor]  # for each row the divergence from the teacher at its scored tokens; where it is needed
    groups_N: Tensor  # which of the step's groups each sample belongs to
    num_groups: int
    num_tokens: int  # in the loss
    max_tokens: int  # that a response may have
    idle: PackedRow | None = None  # passed through for nothing, where other ranks have a row more

    def current_logprobs(self, row: PackedRow) -> NDArray[np.float32]:
        """The engine's log-probabilities of a row's scored tokens under the version that opened the iteration,
        shape (S,); NaN for tokens of older versions and where it gave none."""
        samples = [self.samples[index] for index in row.indices]
        return np.concatenate([sample.current_logprobs[sample.in_loss] for sample in samples])

    def drawn_logprobs(self, row: PackedRow) -> Tensor:
        """The log-probabilities that a row's scored tokens were drawn with, shape (S,); NaN where they are unknown."""
        samples = [self.samples[index] for index in row.indices]
        return torch.from_numpy(np.concatenate([sample.drawn_logprobs[sample.in_loss] for sample in samples]))

    def group_of_tokens(self, row: PackedRow) -> Tensor:
        """Returns which of the step's groups each of a row's scored tokens belongs to, shape (S,)."""
        return self.groups_N[row.indices][row.sequence_S]

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
            num_step_tokens=self.num_tokens,
            max_tokens=self.max_tokens,
            teacher_S=self.teacher[number] if self.teacher else None,
            teacher_kl_S=self.teacher_kl[number] if self.teacher_kl else None,
        )

    def cut(self, max_tokens: int) -> tuple[Minibatch, list[list[PackedRow]]]:
        """The same step in shorter rows, and what became of each row: rows of its sequences, in order."""
        parts = [self._cut_row(row, max_tokens) for row in self.rows]
        behaviour, teacher, teacher_kl = (
            [part for number, values_S in enumerate(values) for part in split(values_S, parts[number])]
            for values in (self.behaviour, self.teacher, self.teacher_kl)
        )
        rows = [row for part in parts for row in part]
        return replace(self, rows=rows, behaviour=behaviour, teacher=teacher, teacher_kl=teacher_kl), parts

    def _cut_row(self, row: PackedRow, max_tokens: int) -> list[PackedRow]:
        if row.num_tokens <= max_tokens or len(row.indices) == 1:
            return [row]
        tokens, scored = [sample.tokens for sample in self.samples], [sample.in_loss for sample in self.samples]
        images = [sample.images for sample in self.samples]
        plan = plan_rows(row.layout.lengths, max_tokens)
        return [pack_row([row.indices[place] for place in places], tokens, scored, images) for places in plan]


def split(values_S: Tensor, rows: Sequence[PackedRow]) -> list[Tensor]:
    """Values of a row's scored tokens, for the rows that it was cut into."""
    return list(values_S.split([len(row.scored_S) for row in rows]))


def make_minibatch(
    groups: Sequence[TrainingGroup], recipe: Recipe, iteration: int, ranks: Ranks, max_tokens: int
) -> Minibatch:
    """The groups of one step, in rows of so many tokens.

    InvalidInputError where the objective needs log-probabilities that an engine left out.
    """
    objective = recipe.trainer.objective
    samples = [sample for group in groups for sample in group.samples]
    advantages = [part for group in groups for part in _advantages(group, recipe, iteration)]
    weights = [1 / (len(groups) * len(group.samples)) for group in groups for _ in group.samples]
    places = [number for number, group in enumerate(groups) for _ in group.samples]
    # A sample none of whose tokens is trained on was only there to be compared with.
    used = [number for number, sample in enumerate(samples) if sample.in_loss.any()]
    samples = [samples[number] for number in used]
    tokens, scored = [sample.tokens for sample in samples], [sample.in_loss for sample in samples]
    rows = pack_rows(tokens, scored, max_tokens, [sample.images for sample in samples])
    if ranks.size > 1:
        rows = all_seeing(rows)
    behaviour = [_behaviour(samples, row, objective) for row in rows] if "behaviour" in objective.needs else []
    teacher = [_of_teacher(samples, row, "teacher_logprobs") for row in rows] if "teacher" in objective.needs else []
    teacher_kl = [_of_teacher(samples, row, "teacher_kl") for row in rows] if "teacher_kl" in objective.needs else []
    mine = ranks.share(rows)
    is_short = len(mine) * ranks.size < len(rows)
    return Minibatch(
        samples=samples,
        advantages=[advantages[number] for number in used],
        weights_N=torch.tensor(weights, dtype=torch.float32, device="cpu")[used],
        rows=mine,
        behaviour=ranks.share(behaviour),
        teacher=ranks.share(teacher),
        teacher_kl=ranks.share(teacher_kl),
        groups_N=torch.tensor(places, device="cpu")[used],
        num_groups=len(groups),
        num_tokens=sum(int(sample.in_loss.sum()) for sample in samples),
        max_tokens=recipe.rollout.max_tokens,
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


def responses_of(group: TrainingGroup) -> list[Response]:
    """A group's samples as rewards are made of them."""
    return [
        Response(sample.score, sample.num_response_tokens, sample.correct, sample.repeated, group.budget_tokens)
        for sample in group.samples
    ]


def rewards_of(group: TrainingGroup, recipe: Recipe, iteration: int) -> list[float]:
    """The rewards of a group's samples, as the recipe's objective has them at this iteration.

    InvalidInputError names a sample whose reward is no number: it would make no number of every weight.
    """
    rewards = recipe.trainer.objective.rewards(responses_of(group), recipe.reward, iteration)
    for sample, reward in zip(group.samples, rewards, strict=True):
        if not math.isfinite(reward):
            raise InvalidInputError(
                f"sample {sample.id} of group {group.id} has the reward {reward} by trainer.objective (type "
                f"{recipe.trainer.objective.type!r}), from the score {sample.score}; a reward is a finite number"
            )
    return rewards


def _behaviour(samples: Sequence[TrainingSample], row: PackedRow, objective: Objective) -> Tensor:
    """The log-probabilities that a row's scored tokens were drawn with, shape (S,)."""
    parts = []
    for index in row.indices:
        sample = samples[index]
        known = sample.drawn_logprobs[sample.in_loss]
        if np.isnan(known).any():
            raise InvalidInputError(
                f"sample {sample.id} has tokens without log-probabilities, and trainer.objective (type "
                f"{objective.type!r}) as it is set needs them; use an engine that gives them"
            )
        parts.append(known)
    return torch.from_numpy(np.concatenate(parts))


def _of_teacher(samples: Sequence[TrainingSample], row: PackedRow, name: TeacherField) -> Tensor:
    """Returns what the teacher said of a row's scored tokens, shape (S,). InvalidInputError: it was not asked of a
    sample."""
    parts = []
    for index in row.indices:
        sample = samples[index]
        said = getattr(sample, name)
        known = None if said is None else said[sample.in_loss]
        if known is None or np.isnan(known).any():
            raise InvalidInputError(
                f"sample {sample.id} has tokens without {name}: the rollout worker that wrote it asked no teacher; are "
                "all workers of this version?"
            )
        parts.append(known)
    return torch.from_numpy(np.concatenate(parts))
