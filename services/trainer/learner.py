"""One iteration: a batch of scored groups in, the next policy and its figures out.

consumes    the iteration's groups, sampled from π_i
produces    the policy of the next iteration, in place, and metrics
randomness  none: the same weights, optimiser state and groups give the same result
"""

from __future__ import annotations

import copy
import functools
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from perilune.errors import InvalidInputError
from perilune.models.machine import give_memory_back
from perilune.objectives.objective import Objective
from perilune.objectives.toggle import toggle_metrics
from perilune.recipe import Recipe
from services.trainer import optimization
from services.trainer.batch import TrainingGroup
from services.trainer.minibatch import Minibatch, make_minibatch, responses_of, rewards_of, split
from services.trainer.policy.adapter import UnadaptedLogprobs
from services.trainer.policy.logprobs import OnGradient
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import PackedRow
from services.trainer.policy.passes import Passes, PassOptions, frozen_passes
from services.trainer.ranks.group import RankLostError, Ranks
from services.trainer.rows import row_tokens
from services.trainer.tally import Tally, summary

logger = logging.getLogger(__name__)

# What makes room in a card's memory.
ROOM = (
    'set trainer.activation_checkpointing = "layers", trainer.precision = "bf16" or a smaller rollout.max_tokens; '
    "train an adapter ([trainer.adapter]); or shard the policy over more cards (--trainer-ranks)"
)
Logprobs = Callable[..., Tensor]  # of a row's scored tokens
P = ParamSpec("P")
T = TypeVar("T")


class InterruptedTraining(Exception):
    """The work was asked to stop; the weights in memory lie between two versions and must not be used."""


def never() -> bool:
    """The answer of training that nothing stops."""
    return False


@dataclass
class Step:
    """A step's samples, and the log-probabilities of their scored tokens under other policies, once known."""

    minibatch: Minibatch
    iteration: list[Tensor] | None = None  # by row, shape (S,)
    frozen: list[Tensor] | None = None

    def cut(self, max_tokens: int) -> None:
        """Has the step in shorter rows."""
        self.minibatch, parts = self.minibatch.cut(max_tokens)
        self.iteration, self.frozen = (
            known and [part for number, values_S in enumerate(known) for part in split(values_S, parts[number])]
            for known in (self.iteration, self.frozen)
        )


def no_room_for(row: PackedRow, num_ranks: int, reason: str) -> str:
    """Returns what to do about a row that has no room in a card's memory."""
    if num_ranks > 1 and len(row.indices) > 1:
        return f"a row of {row.num_tokens} tokens has no room ({reason}): lower trainer.microbatch_tokens; or {ROOM}"
    return f"one sequence of {row.num_tokens} tokens alone has no room ({reason}): {ROOM}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


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
        self._row_tokens = row_tokens(recipe.trainer, policy.model, self._ranks)
        frozen_model = self._frozen_model(frozen) if "frozen" in self._objective.needs else None
        options = PassOptions.of(recipe)
        self._passes = Passes(policy.model, options, self._ranks)
        self._frozen: nn.Module | None = None
        if frozen_model is policy.model:
            self._frozen = UnadaptedLogprobs(self._passes.model, options.temperature)
        elif frozen_model:
            self._frozen = frozen_passes(frozen_model, options, self._ranks)
        self._make_optimizer()

    def _frozen_model(self, frozen: Policy | None) -> PreTrainedModel:
        """The model that the objective compares with: the policy's own, where adapters are what is trained of it."""
        if frozen:
            return frozen.model
        return self.policy.model if self._table.adapter else copy.deepcopy(self.policy.model)

    def _make_optimizer(self) -> None:
        self.optimizer = optimization.make_optimizer(self.policy.model.parameters(), self._table)
        self._passes.follow(self.optimizer)

    def tensors(self) -> list[Tensor]:
        """All that training keeps on the device between two batches: weights, and the optimiser's state."""
        models = [self.policy.model, *([self._frozen] if self._frozen else [])]
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
            self._make_optimizer()
        rate = optimization.learning_rate(self._table, iteration)
        steps = [
            Step(make_minibatch(part, self._recipe, iteration, self._ranks, self._row_tokens))
            for part in _shares(groups, self._table.steps_per_iteration)
        ]
        with self._passes:
            tally = self._take_steps(steps, rate, all_should_stop)
        tally = Tally.of_all(self._ranks.gathered(tally))
        num_mixed = sum(len(set(rewards_of(group, self._recipe, iteration))) > 1 for group in groups)
        metrics = summary(
            groups, num_mixed, tally, rate, self._table.epochs_per_iteration, time.perf_counter() - started
        )
        metrics |= self._objective.metrics(tally.all_observed())
        if table := self._recipe.reward.toggle:
            metrics |= toggle_metrics([responses_of(group) for group in groups], table, iteration)
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _take_steps(self, steps: Sequence[Step], rate: float, should_stop: Callable[[], bool]) -> Tally:
        tally = Tally()
        for number, step in enumerate(steps):
            # Under π_i no step was taken yet, so the first step's own forward pass is its reference.
            if self._objective.looks_at_step if number == 0 else self._needs_iteration:
                self._in_memory(steps, self._reference, step, tally, should_stop)
            if self._frozen:
                step.frozen = self._in_memory(steps, self._by_row, self._frozen, step, should_stop)
        for _ in range(self._table.epochs_per_iteration):
            for step in steps:
                if should_stop():
                    raise InterruptedTraining
                tally = self._in_memory(steps, self._accumulate, step, tally)
                tally.grad_norms.append(self._step(rate))
        return tally

    def _step(self, rate: float) -> float:
        """Takes the optimiser's step; returns the gradient's norm before clipping."""
        try:
            return optimization.step(self.optimizer, rate, self._table.max_grad_norm).item()
        except torch.OutOfMemoryError as error:  # some weights may have been changed: it cannot be taken again
            raise InvalidInputError(f"the optimiser's state has no room ({_first_line(error)}): {ROOM}") from error

    def _in_memory(self, steps: Sequence[Step], work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Does work that can be done again, in shorter rows each time that a row has no room in the card's memory.

        InvalidInputError if one sequence alone has none, or, of several ranks, a row.
        """
        while True:
            try:
                return work(*arguments, **keywords)
            except torch.OutOfMemoryError as error:
                reason = _first_line(error)
            # Outside of the handler: the error holds on to what the pass had made.
            self._shorten_rows(steps, reason)

    def _shorten_rows(self, steps: Sequence[Step], reason: str) -> None:
        """Cuts the rows of all steps to half of the one that had no room, and keeps them so."""
        self._passes.forget_gradients()
        give_memory_back()
        row = self._row
        if len(row.indices) == 1 or self._ranks.size > 1:
            # Another rank than the first cannot fail the run: it ends, so that the others do not wait for it.
            failure = InvalidInputError if self._ranks.leads else RankLostError
            raise failure(no_room_for(row, self._ranks.size, reason))
        self._row_tokens = row.num_tokens // 2
        logger.warning(
            "a row of %d tokens has no room (%s): rows have at most %d from now on, and the step begins again",
            row.num_tokens,
            reason,
            self._row_tokens,
        )
        for step in steps:
            step.cut(self._row_tokens)

    def _reference(self, step: Step, tally: Tally, should_stop: Callable[[], bool]) -> None:
        """Notes log π_i of each scored token, by row, shape (S,)."""
        step.iteration = self._by_row(self._passes, step, should_stop)
        for row, logprobs_S in zip(step.minibatch.rows, step.iteration, strict=True):
            tally.compare(step.minibatch.current_logprobs(row), logprobs_S)

    @torch.no_grad()
    def _by_row(self, logprobs: Logprobs, step: Step, should_stop: Callable[[], bool]) -> list[Tensor]:
        """The log-probabilities of each scored token under a policy as it is, by row, shape (S,)."""
        found, minibatch = [], step.minibatch
        for row in [*minibatch.rows, *([minibatch.idle] if minibatch.idle else [])]:
            if should_stop():
                raise InterruptedTraining
            found.append(self._token_logprobs(logprobs, row))
        return found[: len(minibatch.rows)]

    def _accumulate(self, step: Step, before: Tally) -> Tally:
        """Adds the step's gradient row by row, so that its size does not depend on how rows were cut.

        Before the iteration's first step the policy is π_i, and its own passes are the reference. What is known
        afterwards is kept for the next epoch. Returns the tally with this step's figures.
        """
        tally, minibatch = copy.deepcopy(before), step.minibatch  # this may have to be done again
        is_open = not tally.grad_norms and step.iteration is None
        used = [] if step.iteration is None else step.iteration
        objective = self._for_step(minibatch, used)
        loss, tally.half_squares = 0.0, []
        tally.gradients.open(minibatch.num_groups)
        for number, row in enumerate(minibatch.rows):
            on_gradient = functools.partial(tally.gradients.add, group_S=minibatch.group_of_tokens(row))
            logprobs_S = self._token_logprobs(self._passes, row, on_gradient)
            tally.ratios.add(logprobs_S, minibatch.drawn_logprobs(row))
            if is_open:
                used.append(logprobs_S.detach())
                tally.compare(minibatch.current_logprobs(row), used[number])
            loss_row = minibatch.loss_row(
                number,
                logprobs_S,
                used[number] if self._needs_iteration else None,
                step.frozen[number] if step.frozen is not None else None,
            )
            row_loss, observed = objective.loss(loss_row)
            row_loss.backward()
            loss += row_loss.item()
            tally.observe(observed)
            if self._needs_iteration:
                tally.half_squares += (0.5 * loss_row.sums(loss_row.log_ratio_S.detach()) ** 2).tolist()
        if minibatch.idle:
            (0.0 * self._token_logprobs(self._passes, minibatch.idle).sum()).backward()
        tally.losses.append(loss)
        step.iteration = used if self._needs_iteration else None
        return tally

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

    def _token_logprobs(self, logprobs: Logprobs, row: PackedRow, *on_gradient: OnGradient) -> Tensor:
        self._row = row
        return logprobs(row, *on_gradient).cpu()  # what comes after is little, and on the CPU


def _shares(groups: Sequence[TrainingGroup], num_shares: int) -> list[Sequence[TrainingGroup]]:
    """Consecutive whole groups for each step: no share has two more than another, and there are no empty ones."""
    num_groups, num_shares = len(groups), min(len(groups), num_shares)
    ends = [num_groups * number // num_shares for number in range(num_shares + 1)] if num_shares else []
    return [groups[start:end] for start, end in itertools.pairwise(ends)]
