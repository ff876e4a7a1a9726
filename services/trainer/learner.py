"""One iteration: a batch of scored groups in, the next policy and its figures out.

consumes    the iteration's groups, sampled from π_i
produces    the policy of the next iteration, in place, and metrics
randomness  none: the same weights, optimiser state and groups give the same result
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perilune.errors import InvalidInputError
from perilune.recipe import Recipe
from perilune.rewards import group_rewards
from services.trainer import optimization
from services.trainer.batch import Group, Sample
from services.trainer.objectives import make_objective
from services.trainer.objectives.objective import LossRow, Objective
from services.trainer.policy.logprobs import TokenLogprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import PackedRow, pack_rows
from services.trainer.ranks.group import Ranks
from services.trainer.ranks.sharding import shard
from services.trainer.tally import Tally, summary


class InterruptedTraining(Exception):
    """The work was asked to stop; the weights in memory lie between two versions and must not be used."""


def never() -> bool:
    return False


@dataclass(frozen=True)
class Minibatch:
    """The samples of one optimiser step, packed, with what the loss needs of each."""

    samples: list[Sample]  # those with tokens in the loss
    advantages: list[Tensor]  # of each sample's tokens in the loss
    weights_N: Tensor  # 1 / (groups in the step × samples in the group): the loss is the weighted sum
    rows: list[PackedRow]  # this rank's
    behaviour: list[Tensor]  # for each row what its scored tokens were drawn with, shape (S,); where that is needed
    idle: PackedRow | None = None  # passed through for nothing, where other ranks have a row more

    def engine_logprobs(self, row: PackedRow) -> NDArray[np.float32]:
        """What the engine says of a row's scored tokens, shape (S,); NaN where it says nothing."""
        samples = [self.samples[index] for index in row.indices]
        return np.concatenate([sample.engine_logprobs[sample.in_loss] for sample in samples])

    def loss_row(self, number: int, policy_S: Tensor, reference_S: Tensor | None) -> LossRow:
        """A row as the objective takes it."""
        row = self.rows[number]
        return LossRow(
            policy_S,
            reference_S,
            self.behaviour[number] if self.behaviour else None,
            torch.cat([self.advantages[index] for index in row.indices]),
            row.sequence_S,
            self.weights_N[row.indices],
        )


class Learner:
    """Holds the policy and its optimiser across iterations.

    Of several ranks each has a learner, and all are called alike, with the same groups: a step's rows go round the
    ranks, and the step is that of all rows.
    """

    def __init__(self, policy: Policy, recipe: Recipe, ranks: Ranks | None = None) -> None:
        """`policy`: with several ranks, it is the first one's that is dealt out to all."""
        self.policy = policy
        self._ranks = ranks or Ranks()
        self._logprobs = TokenLogprobs(policy.model, recipe.rollout.temperature)
        if self._ranks.size > 1:
            shard(self._logprobs, self._ranks)
        self._table = recipe.trainer
        self._reward = recipe.reward
        self._objective = make_objective(recipe.trainer.objective)
        self.optimizer = optimization.make_optimizer(policy.model.parameters(), recipe.trainer)

    def train(
        self, iteration: int, groups: Sequence[Group], should_stop: Callable[[], bool] = never
    ) -> dict[str, float]:
        """Takes the iteration's optimiser steps on the policy, in place.

        Args:
            iteration: decides the learning rate and the length reward's warm-up.
            groups: the whole batch; may be empty, which leaves the policy as it is.
            should_stop: asked before every step; the first rank's answer holds for all.

        Returns:
            Metrics by name: rewards, lengths and rates as `tally.summary` says.

        Raises:
            InterruptedTraining: should_stop said so.
            DivergedError: a gradient is not finite.
        """
        started = time.perf_counter()

        def all_should_stop() -> bool:
            return self._ranks.decide(should_stop())

        if self._table.reset_optimizer:
            self.optimizer = optimization.make_optimizer(self.policy.model.parameters(), self._table)
        rate = optimization.learning_rate(self._table, iteration)
        minibatches = [self._minibatch(part, iteration) for part in _shares(groups, self._table.steps_per_iteration)]
        tally = Tally()
        # Under π_i no step was taken yet, so the first step's own forward pass is its reference.
        references: list[list[Tensor] | None] = [None] * len(minibatches)
        if self._needs_reference:
            references[1:] = [self._reference(minibatch, tally, all_should_stop) for minibatch in minibatches[1:]]
        for _ in range(self._table.epochs_per_iteration):
            for number, minibatch in enumerate(minibatches):
                if all_should_stop():
                    raise InterruptedTraining
                references[number] = self._accumulate(minibatch, references[number], tally)
                norm = optimization.step(self.optimizer, rate, self._table.max_grad_norm)
                tally.grad_norms.append(norm.item())
        tally = Tally.of_all(self._ranks.gathered(tally))
        num_mixed = sum(len(set(self._rewards(group, iteration))) > 1 for group in groups)
        metrics = summary(
            groups, num_mixed, tally, rate, self._table.epochs_per_iteration, time.perf_counter() - started
        )
        metrics |= self._objective.metrics(tally.all_observed())
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _minibatch(self, groups: Sequence[Group], iteration: int) -> Minibatch:
        samples = [sample for group in groups for sample in group.samples]
        advantages = [part for group in groups for part in self._advantages(group, iteration)]
        weights = [1 / (len(groups) * len(group.samples)) for group in groups for _ in group.samples]
        # A sample none of whose tokens is trained on was only there to be compared with.
        used = [number for number, sample in enumerate(samples) if sample.in_loss.any()]
        samples = [samples[number] for number in used]
        rows = pack_rows(
            [sample.tokens for sample in samples], [sample.in_loss for sample in samples], self._table.microbatch_tokens
        )
        behaviour = [_behaviour(samples, row) for row in rows] if self._objective.needs_behaviour else []
        mine = self._ranks.share(rows)
        is_short = len(mine) * self._ranks.size < len(rows)
        return Minibatch(
            samples=samples,
            advantages=[advantages[number] for number in used],
            weights_N=torch.tensor(weights, dtype=torch.float32)[used],
            rows=mine,
            behaviour=self._ranks.share(behaviour),
            idle=rows[-1] if is_short else None,  # the last one has the fewest tokens
        )

    def _advantages(self, group: Group, iteration: int) -> list[Tensor]:
        num_tokens = [int(sample.in_loss.sum()) for sample in group.samples]
        return self._objective.advantages(self._rewards(group, iteration), num_tokens)

    def _rewards(self, group: Group, iteration: int) -> list[float]:
        """What the objective compares."""
        return group_rewards(
            [sample.score for sample in group.samples],
            [sample.num_response_tokens for sample in group.samples],
            [sample.correct for sample in group.samples],
            [sample.repeated for sample in group.samples],
            self._reward,
            iteration,
        )

    @torch.no_grad()
    def _reference(self, minibatch: Minibatch, tally: Tally, should_stop: Callable[[], bool]) -> list[Tensor]:
        """log π_i of each scored token, by row, shape (S,)."""
        reference = []
        for row in minibatch.rows:
            if should_stop():
                raise InterruptedTraining
            reference.append(self._token_logprobs(row))
            tally.compare(minibatch.engine_logprobs(row), reference[-1])
        if minibatch.idle:
            if should_stop():
                raise InterruptedTraining
            self._token_logprobs(minibatch.idle)
        return reference

    def _accumulate(self, minibatch: Minibatch, reference: list[Tensor] | None, tally: Tally) -> list[Tensor] | None:
        """Adds the minibatch's gradient row by row, so that its size does not depend on how rows were cut.

        Before the iteration's first step the policy is π_i, and its own passes are the reference. The reference is
        returned, for the next epoch; None where the objective needs none.
        """
        is_open = not tally.grad_norms and reference is None
        if is_open and self._objective.looks_at_step:
            reference, is_open = self._reference(minibatch, tally, never), False
        used = reference or []
        objective = self._for_step(minibatch, used)
        loss, tally.half_squares = 0.0, []
        for number, row in enumerate(minibatch.rows):
            logprobs_S = self._token_logprobs(row)
            if is_open:
                used.append(logprobs_S.detach())
                tally.compare(minibatch.engine_logprobs(row), used[number])
            loss_row = minibatch.loss_row(number, logprobs_S, used[number] if self._needs_reference else None)
            row_loss, observed = objective.loss(loss_row)
            row_loss.backward()
            loss += row_loss.item()
            tally.observe(observed)
            if self._needs_reference:
                tally.half_squares += (0.5 * loss_row.sums(loss_row.log_ratio_S.detach()) ** 2).tolist()
        if minibatch.idle:
            (0.0 * self._token_logprobs(minibatch.idle).sum()).backward()
        tally.losses.append(loss)
        return used if self._needs_reference else None

    @property
    def _needs_reference(self) -> bool:
        return self._objective.reference == "iteration"

    def _for_step(self, minibatch: Minibatch, reference: list[Tensor]) -> Objective:
        """The objective of this step, after a look at the tokens of all ranks where it wants one."""
        if not self._objective.looks_at_step:
            return self._objective
        mine = list(zip(reference, minibatch.behaviour, strict=True))
        pairs = [pair for part in self._ranks.gathered(mine) for pair in part]
        reference_S, behaviour_S = (torch.cat([torch.empty(0), *(pair[place] for pair in pairs)]) for place in (0, 1))
        return self._objective.for_step(reference_S, behaviour_S)

    def _token_logprobs(self, row: PackedRow) -> Tensor:
        device = self.policy.model.device.type
        autocast = (
            torch.autocast(device, torch.bfloat16) if self._table.precision == "bf16" else contextlib.nullcontext()
        )
        with autocast:
            return self._logprobs(row).cpu()  # what comes after is little, and on the CPU


def _shares(groups: Sequence[Group], num_shares: int) -> list[Sequence[Group]]:
    """Consecutive whole groups for each step: no share has two more than another, and there are no empty ones."""
    num_groups, num_shares = len(groups), min(len(groups), num_shares)
    ends = [num_groups * number // num_shares for number in range(num_shares + 1)] if num_shares else []
    return [groups[start:end] for start, end in itertools.pairwise(ends)]


def _behaviour(samples: Sequence[Sample], row: PackedRow) -> Tensor:
    """What a row's scored tokens were drawn with. InvalidInputError where an engine did not say."""
    parts = []
    for index in row.indices:
        sample = samples[index]
        known = None if sample.behaviour_logprobs is None else sample.behaviour_logprobs[sample.in_loss]
        if known is None or np.isnan(known).any():
            raise InvalidInputError(
                f"sample {sample.id} has tokens without log-probabilities, and trainer.objective.correction needs "
                "them; use an engine that gives them"
            )
        parts.append(known)
    return torch.from_numpy(np.concatenate(parts))
