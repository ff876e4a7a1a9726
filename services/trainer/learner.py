"""One iteration: a batch of scored groups in, the next policy and its figures out.

consumes    the iteration's groups, sampled from π_i
produces    the policy of the next iteration, in place, and metrics
randomness  none: the same weights, optimiser state and groups give the same result
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perilune.objectives.objective import Objective
from perilune.recipe import Recipe
from services.trainer import optimization
from services.trainer.batch import TrainingGroup
from services.trainer.minibatch import Minibatch, make_minibatch, rewards_of
from services.trainer.policy.adapter import UnadaptedLogprobs
from services.trainer.policy.logprobs import OnGradient, TokenLogprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import PackedRow
from services.trainer.ranks.group import Ranks
from services.trainer.ranks.sharding import shard
from services.trainer.tally import Tally, summary


class InterruptedTraining(Exception):
    """The work was asked to stop; the weights in memory lie between two versions and must not be used."""


def never() -> bool:
    """The answer of training that nothing stops."""
    return False


class References(NamedTuple):
    """The log-probabilities of a minibatch's scored tokens under other policies, by row, shape (S,), once known."""

    iteration: list[Tensor] | None = None
    frozen: list[Tensor] | None = None


class Learner:
    """Holds the policy and its optimiser across iterations.

    Of several ranks each has a learner, and all are called alike, with the same groups: a step's rows go round the
    ranks, and the step is that of all rows.
    """

    def __init__(
        self, policy: Policy, recipe: Recipe, ranks: Ranks | None = None, frozen: Policy | None = None
    ) -> None:
        """With several ranks, it is the first one's policies that all of them share.

        Args:
            frozen: the policy that the objective compares with and that stays as it is. If it is not given, that is
                `policy` as it is now; where adapters are trained, as it is without them, and no copy is made.
        """
        self.policy, self._recipe = policy, recipe
        self._ranks = ranks or Ranks()
        self._table, self._objective = recipe.trainer, recipe.trainer.objective
        self._logprobs = TokenLogprobs(policy.model, recipe.rollout.temperature)
        self._frozen = self._frozen_logprobs(frozen) if "frozen" in self._objective.needs else None
        if self._ranks.size > 1:
            shard(self._logprobs, self._ranks)
        self.optimizer = optimization.make_optimizer(policy.model.parameters(), recipe.trainer)

    def _frozen_logprobs(self, frozen: Policy | None) -> nn.Module:
        temperature = self._recipe.rollout.temperature
        if frozen is None and self._table.adapter:
            return UnadaptedLogprobs(self.policy.model, temperature)
        model = frozen.model if frozen else copy.deepcopy(self.policy.model)
        logprobs = TokenLogprobs(model.requires_grad_(False), temperature)
        if self._ranks.size > 1:
            shard(logprobs, self._ranks)
        return logprobs

    def tensors(self) -> list[Tensor]:
        """All that training keeps on the device between two batches: weights, and the optimiser's state."""
        models = [self.policy.model, *([self._frozen] if isinstance(self._frozen, TokenLogprobs) else [])]
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return [
            *(tensor for model in models for tensor in (*model.parameters(), *model.buffers())),
            *(value for value in moments if isinstance(value, Tensor)),
        ]

    def train(
        self, iteration: int, groups: Sequence[TrainingGroup], should_stop: Callable[[], bool] = never
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
        minibatches = [
            make_minibatch(part, self._recipe, iteration, self._ranks)
            for part in _shares(groups, self._table.steps_per_iteration)
        ]
        tally = Tally()
        # Under π_i no step was taken yet, so the first step's own forward pass is its reference.
        iteration_logprobs = [
            self._reference(minibatch, tally, all_should_stop) if number and self._needs_iteration else None
            for number, minibatch in enumerate(minibatches)
        ]
        frozen_logprobs = [
            self._by_row(self._frozen, minibatch, all_should_stop) if self._frozen else None
            for minibatch in minibatches
        ]
        references = list(map(References, iteration_logprobs, frozen_logprobs))
        for _ in range(self._table.epochs_per_iteration):
            for number, minibatch in enumerate(minibatches):
                if all_should_stop():
                    raise InterruptedTraining
                references[number] = self._accumulate(minibatch, references[number], tally)
                norm = optimization.step(self.optimizer, rate, self._table.max_grad_norm)
                tally.grad_norms.append(norm.item())
        tally = Tally.of_all(self._ranks.gathered(tally))
        num_mixed = sum(len(set(rewards_of(group, self._recipe, iteration))) > 1 for group in groups)
        metrics = summary(
            groups, num_mixed, tally, rate, self._table.epochs_per_iteration, time.perf_counter() - started
        )
        metrics |= self._objective.metrics(tally.all_observed())
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _reference(self, minibatch: Minibatch, tally: Tally, should_stop: Callable[[], bool]) -> list[Tensor]:
        """log π_i of each scored token, by row, shape (S,)."""
        reference = self._by_row(self._logprobs, minibatch, should_stop)
        for row, logprobs_S in zip(minibatch.rows, reference, strict=True):
            tally.compare(minibatch.current_logprobs(row), logprobs_S)
        return reference

    @torch.no_grad()
    def _by_row(self, logprobs: nn.Module, minibatch: Minibatch, should_stop: Callable[[], bool]) -> list[Tensor]:
        """The log-probabilities of each scored token under a policy as it is, by row, shape (S,)."""
        found = []
        for row in [*minibatch.rows, *([minibatch.idle] if minibatch.idle else [])]:
            if should_stop():
                raise InterruptedTraining
            found.append(self._token_logprobs(logprobs, row))
        return found[: len(minibatch.rows)]

    def _accumulate(self, minibatch: Minibatch, known: References, tally: Tally) -> References:
        """Adds the minibatch's gradient row by row, so that its size does not depend on how rows were cut.

        Before the iteration's first step the policy is π_i, and its own passes are the reference. What is known
        afterwards is returned, for the next epoch.
        """
        reference, is_open = known.iteration, not tally.grad_norms and known.iteration is None
        if is_open and self._objective.looks_at_step:
            reference, is_open = self._reference(minibatch, tally, never), False
        used = reference or []
        objective = self._for_step(minibatch, used)
        loss, tally.half_squares = 0.0, []
        tally.gradients.open(minibatch.num_groups)
        for number, row in enumerate(minibatch.rows):
            on_gradient = functools.partial(tally.gradients.add, group_S=minibatch.group_of_tokens(row))
            logprobs_S = self._token_logprobs(self._logprobs, row, on_gradient)
            tally.ratios.add(logprobs_S, minibatch.drawn_logprobs(row))
            if is_open:
                used.append(logprobs_S.detach())
                tally.compare(minibatch.current_logprobs(row), used[number])
            loss_row = minibatch.loss_row(
                number,
                logprobs_S,
                used[number] if self._needs_iteration else None,
                known.frozen[number] if known.frozen is not None else None,
            )
            row_loss, observed = objective.loss(loss_row)
            row_loss.backward()
            loss += row_loss.item()
            tally.observe(observed)
            if self._needs_iteration:
                tally.half_squares += (0.5 * loss_row.sums(loss_row.log_ratio_S.detach()) ** 2).tolist()
        if minibatch.idle:
            (0.0 * self._token_logprobs(self._logprobs, minibatch.idle).sum()).backward()
        tally.losses.append(loss)
        return References(used if self._needs_iteration else None, known.frozen)

    @property
    def _needs_iteration(self) -> bool:
        return "iteration" in self._objective.needs

    def _for_step(self, minibatch: Minibatch, reference: list[Tensor]) -> Objective:
        """The objective of this step, after a look at the tokens of all ranks where it wants one."""
        if not self._objective.looks_at_step:
            return self._objective
        mine = list(zip(reference, minibatch.behaviour, strict=True))
        pairs = [pair for part in self._ranks.gathered(mine) for pair in part]
        none = torch.empty(0, device="cpu")
        reference_S, behaviour_S = (torch.cat([none, *(pair[place] for pair in pairs)]) for place in (0, 1))
        return self._objective.for_step(reference_S, behaviour_S)

    def _token_logprobs(self, logprobs: nn.Module, row: PackedRow, *on_gradient: OnGradient) -> Tensor:
        device = self.policy.model.device.type
        autocast = (
            torch.autocast(device, torch.bfloat16) if self._table.precision == "bf16" else contextlib.nullcontext()
        )
        with autocast:
            values_S: Tensor = logprobs(row, *on_gradient)
        return values_S.cpu()  # what comes after is little, and on the CPU


def _shares(groups: Sequence[TrainingGroup], num_shares: int) -> list[Sequence[TrainingGroup]]:
    """Consecutive whole groups for each step: no share has two more than another, and there are no empty ones."""
    num_groups, num_shares = len(groups), min(len(groups), num_shares)
    ends = [num_groups * number // num_shares for number in range(num_shares + 1)] if num_shares else []
    return [groups[start:end] for start, end in itertools.pairwise(ends)]
