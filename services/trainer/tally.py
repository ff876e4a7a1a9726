"""An iteration's figures: counted in the passes over its data, and the metrics that are made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.trainer.batch import TrainingGroup
from services.trainer.diagnostics import GroupGradients, RatioSums

INFINITE_GAP = 1e6  # nats: an engine that says of a token that it drew that it cannot come


@dataclass
class Tally:
    """Figures from the passes over this rank's part of an iteration's data, for the metrics."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    half_squares: list[float] = field(default_factory=list)  # ρ²/2 of each sample, of the step at hand
    num_reference_tokens: int = 0
    sum_reference_logprobs: float = 0.0
    engine_gap: float = -math.inf
    observed: dict[str, list[Tensor]] = field(default_factory=dict)  # by the objective, row by row
    ratios: RatioSums = field(default_factory=RatioSums)
    gradients: GroupGradients = field(default_factory=GroupGradients)

    @staticmethod
    def of_all(parts: Sequence[Tally]) -> Tally:
        """The tallies of all ranks as one."""
        names = sorted({name for part in parts for name in part.observed})
        return Tally(
            losses=[math.fsum(losses) for losses in zip(*(part.losses for part in parts), strict=True)],
            grad_norms=parts[0].grad_norms,  # of all ranks' gradients already
            half_squares=[value for part in parts for value in part.half_squares],
            num_reference_tokens=sum(part.num_reference_tokens for part in parts),
            sum_reference_logprobs=math.fsum(part.sum_reference_logprobs for part in parts),
            engine_gap=max(part.engine_gap for part in parts),
            observed={name: [each for part in parts for each in part.observed.get(name, [])] for name in names},
            ratios=RatioSums.of_all([part.ratios for part in parts]),
            gradients=GroupGradients.of_all([part.gradients for part in parts]),
        )

    def observe(self, values: Mapping[str, Tensor]) -> None:
        """Adds one row's values, by name."""
        for name, value in values.items():
            self.observed.setdefault(name, []).append(value)

    def all_observed(self) -> dict[str, Tensor]:
        """The values that the objective gave, over all rows; without names that have none."""
        joined = {name: torch.cat(values) for name, values in self.observed.items()}
        return {name: values for name, values in joined.items() if len(values)}

    def compare(self, engine_S: NDArray[np.float32], logprobs_S: Tensor) -> None:
        """Notes log-probabilities of the policy that opened the iteration, and how far the engine's lie from them."""
        gaps = np.abs(engine_S - logprobs_S.numpy())
        if not np.isnan(gaps).all():
            self.engine_gap = max(self.engine_gap, float(np.nanmax(gaps)))
        self.num_reference_tokens += len(logprobs_S)
        self.sum_reference_logprobs += logprobs_S.sum().item()


def summary(
    groups: Sequence[TrainingGroup], num_mixed: int, tally: Tally, rate: float, num_epochs: int, train_seconds: float
) -> dict[str, float]:
    """The iteration's metrics. Those that need samples or steps are left out where there were none."""
    samples = [sample for group in groups for sample in group.samples]
    lengths = [sample.num_response_tokens for sample in samples]
    num_tokens = sum(len(sample.tokens) for sample in samples)
    metrics = {
        "num_groups": float(len(groups)),
        "num_samples": float(len(samples)),
        "num_tokens": float(sum(lengths)),  # that the policy wrote
        "num_loss_tokens": float(sum(int(sample.in_loss.sum()) for sample in samples)),
        "num_steps": float(len(tally.grad_norms)),
        "learning_rate": rate,
        "train_seconds": train_seconds,
        "tokens_per_second": num_tokens * num_epochs / train_seconds,  # prompts included
    }
    if samples:
        metrics |= {
            "reward": math.fsum(sample.score for sample in samples) / len(samples),
            "accuracy": sum(sample.correct for sample in samples) / len(samples),
            "mean_tokens": sum(lengths) / len(samples),
            "mixed_groups": num_mixed / len(groups),  # the share whose rewards are not all equal
            "loss": math.fsum(tally.losses) / len(tally.losses),
            "grad_norm": math.fsum(tally.grad_norms) / len(tally.grad_norms),
            # How many versions old the oldest token in the loss was, of each sample.
            "staleness_mean": sum(sample.staleness for sample in samples) / len(samples),
            "staleness_max": float(max(sample.staleness for sample in samples)),
            "repeated": sum(sample.repeated for sample in samples) / len(samples),
        }
    if tally.half_squares:
        # E[ρ²]/2, KL(π_i ‖ π_θ) to second order, nats a sequence, on the last step's samples before that step.
        metrics["kl"] = math.fsum(tally.half_squares) / len(tally.half_squares)
    if tally.num_reference_tokens:
        # Samples are drawn from π_i, so this estimates its entropy; nats a token.
        metrics["entropy"] = -tally.sum_reference_logprobs / tally.num_reference_tokens
    if tally.engine_gap >= 0:
        metrics["engine_gap"] = min(tally.engine_gap, INFINITE_GAP)  # nats; the largest over all tokens
    return metrics | tally.ratios.metrics() | tally.gradients.metrics()
