"""One iteration of k1.5: a batch of scored groups in, the next policy and its figures out.

consumes    the iteration's groups, sampled from π_i
produces    the policy of the next iteration, in place, and metrics
randomness  none: the same weights, optimiser state and groups give the same result
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from perilune.recipe import Recipe
from services.trainer import objective, optimization
from services.trainer.batch import Group, Sample
from services.trainer.logprobs import sequence_logprobs, token_logprobs
from services.trainer.model import Policy
from services.trainer.packing import PackedRow, pack_rows
from services.trainer.rewards import shaped_rewards


class InterruptedTraining(Exception):
    """The work was asked to stop; the weights in memory lie between two versions and must not be used."""


def never() -> bool:
    return False


@dataclass(frozen=True)
class Minibatch:
    """The samples of one optimiser step, packed, with what the loss needs of each."""

    samples: list[Sample]
    advantages_N: Tensor
    weights_N: Tensor  # 1 / (groups in the step × samples in the group): the loss is the weighted sum
    rows: list[PackedRow]


@dataclass
class _Tally:
    """What the passes over an iteration's data leave for the metrics."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    half_squares: list[float] = field(default_factory=list)  # ρ²/2 of each sample, of the step at hand
    num_reference_tokens: int = 0
    sum_reference_logprobs: float = 0.0
    engine_gap: float = -math.inf


class Learner:
    """Holds the policy and its optimiser across iterations."""

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        self.policy = policy
        self._table = recipe.trainer
        self._length_reward = recipe.reward.length
        self.optimizer = optimization.make_optimizer(policy.model.parameters(), recipe.trainer)

    def train(
        self, iteration: int, groups: Sequence[Group], should_stop: Callable[[], bool] = never
    ) -> dict[str, float]:
        """Takes the iteration's optimiser steps on the policy, in place.

        Args:
            iteration: decides the learning rate and the length reward's warm-up.
            groups: the whole batch; may be empty, which leaves the policy as it is.
            should_stop: asked before every step.

        Returns:
            Metrics by name: rewards, lengths and rates as `_summary` says.

        Raises:
            InterruptedTraining: should_stop said so.
            DivergedError: a gradient is not finite.
        """
        started = time.perf_counter()
        if self._table.reset_optimizer:
            self.optimizer = optimization.make_optimizer(self.policy.model.parameters(), self._table)
        rate = optimization.learning_rate(self._table, iteration)
        minibatches = [self._minibatch(part, iteration) for part in _shares(groups, self._table.steps_per_iteration)]
        tally = _Tally()
        # Under π_i no step was taken yet, so the first step's own forward pass is its reference.
        references = [None, *(self._reference(minibatch, tally, should_stop) for minibatch in minibatches[1:])]
        for _ in range(self._table.epochs_per_iteration):
            for number, minibatch in enumerate(minibatches):
                if should_stop():
                    raise InterruptedTraining
                references[number] = self._accumulate(minibatch, references[number], tally)
                norm = optimization.step(self.optimizer, rate, self._table.max_grad_norm)
                tally.grad_norms.append(norm.item())
        return _summary(groups, tally, rate, self._table.epochs_per_iteration, time.perf_counter() - started)

    def _minibatch(self, groups: Sequence[Group], iteration: int) -> Minibatch:
        samples = [sample for group in groups for sample in group.samples]
        advantages: list[float] = []
        for group in groups:
            rewards = shaped_rewards(
                [sample.score for sample in group.samples],
                [sample.num_response_tokens for sample in group.samples],
                [sample.correct for sample in group.samples],
                self._length_reward,
                iteration,
            )
            advantages += objective.advantages(rewards, self._table.baseline, self._table.tau)
        weights = [1 / (len(groups) * len(group.samples)) for group in groups for _ in group.samples]
        return Minibatch(
            samples=samples,
            advantages_N=torch.tensor(advantages, dtype=torch.float32),
            weights_N=torch.tensor(weights, dtype=torch.float32),
            rows=pack_rows(
                [sample.tokens for sample in samples],
                [sample.in_loss for sample in samples],
                self._table.microbatch_tokens,
            ),
        )

    @torch.no_grad()
    def _reference(self, minibatch: Minibatch, tally: _Tally, should_stop: Callable[[], bool]) -> Tensor:
        """log π_i of each sample, shape (N,)."""
        reference_N = torch.empty(len(minibatch.samples))
        for row in minibatch.rows:
            if should_stop():
                raise InterruptedTraining
            logprobs_S = self._token_logprobs(row)
            reference_N[row.indices] = sequence_logprobs(logprobs_S, row)
            _compare(minibatch, row, logprobs_S, tally)
        return reference_N

    def _accumulate(self, minibatch: Minibatch, reference_N: Tensor | None, tally: _Tally) -> Tensor:
        """Adds the minibatch's gradient row by row, so that its size does not depend on how rows were cut.

        Without a reference the policy is still π_i; either way the reference is returned, for the next epoch.
        """
        used_N = torch.empty(len(minibatch.samples)) if reference_N is None else reference_N
        loss = 0.0
        tally.half_squares = []
        for row in minibatch.rows:
            logprobs_S = self._token_logprobs(row)
            policy_n = sequence_logprobs(logprobs_S, row)
            if reference_N is None:
                used_N[row.indices] = policy_n.detach()
                _compare(minibatch, row, logprobs_S.detach(), tally)
            log_ratio_n = policy_n - used_N[row.indices]
            losses_n = objective.policy_loss(minibatch.advantages_N[row.indices], log_ratio_n, self._table.tau)
            row_loss = (minibatch.weights_N[row.indices] * losses_n).sum()
            row_loss.backward()
            loss += row_loss.item()
            tally.half_squares += (0.5 * log_ratio_n.detach() ** 2).tolist()
        tally.losses.append(loss)
        return used_N

    def _token_logprobs(self, row: PackedRow) -> Tensor:
        autocast = (
            torch.autocast("cpu", torch.bfloat16) if self._table.precision == "bf16" else contextlib.nullcontext()
        )
        with autocast:
            return token_logprobs(self.policy.model, row)


def _shares(groups: Sequence[Group], num_shares: int) -> list[Sequence[Group]]:
    """Consecutive whole groups for each step; fewer steps if there are fewer groups."""
    size = max(1, math.ceil(len(groups) / num_shares))
    return [groups[start : start + size] for start in range(0, len(groups), size)]


def _compare(minibatch: Minibatch, row: PackedRow, logprobs_S: Tensor, tally: _Tally) -> None:
    """Notes the policy's own log-probabilities, and how far the engine's lie from them."""
    engine_S = np.concatenate([_scored(minibatch.samples[index]) for index in row.indices])
    gaps = np.abs(engine_S - logprobs_S.numpy())
    if not np.isnan(gaps).all():
        tally.engine_gap = max(tally.engine_gap, float(np.nanmax(gaps)))
    tally.num_reference_tokens += len(logprobs_S)
    tally.sum_reference_logprobs += logprobs_S.sum().item()


def _scored(sample: Sample) -> np.ndarray:
    return sample.engine_logprobs[sample.in_loss]


def _summary(
    groups: Sequence[Group], tally: _Tally, rate: float, num_epochs: int, train_seconds: float
) -> dict[str, float]:
    """The iteration's metrics. Those that need samples or steps are left out where there were none."""
    samples = [sample for group in groups for sample in group.samples]
    lengths = [sample.num_response_tokens for sample in samples]
    num_tokens = sum(len(sample.tokens) for sample in samples)
    metrics = {
        "num_groups": float(len(groups)),
        "num_samples": float(len(samples)),
        "num_tokens": float(sum(lengths)),  # that the policy wrote
        "num_steps": float(len(tally.grad_norms)),
        "learning_rate": rate,
        "train_seconds": train_seconds,
        "tokens_per_second": num_tokens * num_epochs / train_seconds,  # prompts included
    }
    if samples:
        mixed = [len({sample.score for sample in group.samples}) > 1 for group in groups]
        metrics |= {
            "reward": math.fsum(sample.score for sample in samples) / len(samples),
            "accuracy": sum(sample.correct for sample in samples) / len(samples),
            "mean_tokens": sum(lengths) / len(samples),
            "mixed_groups": sum(mixed) / len(groups),  # the share that carries a preference
            "loss": math.fsum(tally.losses) / len(tally.losses),
            "grad_norm": math.fsum(tally.grad_norms) / len(tally.grad_norms),
            # E[ρ²]/2, KL(π_i ‖ π_θ) to second order, nats a sequence, on the last step's samples before that step.
            "kl": math.fsum(tally.half_squares) / len(tally.half_squares),
        }
    if tally.num_reference_tokens:
        # Samples are drawn from π_i, so this estimates its entropy; nats a token.
        metrics["entropy"] = -tally.sum_reference_logprobs / tally.num_reference_tokens
    if tally.engine_gap >= 0:
        metrics["engine_gap"] = tally.engine_gap  # nats; the largest over all tokens
    return metrics
