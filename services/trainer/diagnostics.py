"""Diagnostics that every objective has alike: how far the policy is from what tokens were drawn with, and how much the
groups of a step agree on where to go.

Counted in passes that are made anyway. Several ranks' counts add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

NEAR = math.log(1.2)  # nats: a token's ratio counts as outside beyond [1/1.2, 1.2], about where PPO clips


@dataclass
class RatioSums:
    """Sums over tokens, of the ratio w = π_θ/μ: of the policy before a step to what its engine drew the token with.

    Tokens whose engine said nothing are left out.
    """

    num_tokens: float = 0.0
    weights: float = 0.0
    squared_weights: float = 0.0
    squared_logs: float = 0.0
    divergences: float = 0.0  # w - 1 - log w: Schulman's k3 estimate of KL(μ ‖ π_θ), from tokens of μ
    outside: float = 0.0

    def add(self, policy_S: Tensor, drawn_S: Tensor) -> None:
        """Adds the tokens of a row: log-probabilities by π_θ and μ, in nats; NaN in `drawn_S` where it is unknown."""
        log_ratio = (policy_S.detach() - drawn_S).double()
        log_ratio = log_ratio[~log_ratio.isnan()]
        weight = log_ratio.exp()
        self.num_tokens += len(log_ratio)
        self.weights += weight.sum().item()
        self.squared_weights += (weight**2).sum().item()
        self.squared_logs += (log_ratio**2).sum().item()
        self.divergences += (log_ratio.expm1() - log_ratio).sum().item()
        self.outside += (log_ratio.abs() > NEAR).sum().item()

    @staticmethod
    def of_all(parts: Sequence[RatioSums]) -> RatioSums:
        """The sums of all ranks."""
        return RatioSums(*(math.fsum(getattr(part, each.name) for part in parts) for each in fields(RatioSums)))

    def metrics(self) -> dict[str, float]:
        """Of all tokens of all of an iteration's steps; nothing where no engine said what it drew with.

        ratio_effective_share  Kish's effective sample size (Σw)²/Σw², as a share of the tokens
        ratio_second_moment    mean (log w)², nats²
        ratio_kl               mean w - 1 - log w, nats a token
        ratio_outside          the share of tokens with w outside [1/1.2, 1.2]
        """
        if not self.num_tokens:
            return {}
        return {
            "ratio_effective_share": self.weights**2 / (self.num_tokens * self.squared_weights),
            "ratio_second_moment": self.squared_logs / self.num_tokens,
            "ratio_kl": self.divergences / self.num_tokens,
            "ratio_outside": self.outside / self.num_tokens,
        }


@dataclass
class GroupGradients:
    """The gradient by an offset on all last hidden states, by step and group.

    A slice of the whole gradient that costs a sum; a group's whole gradient would cost a backward pass of its own.
    """

    steps: list[Tensor] = field(default_factory=list)  # of each step, shape (groups, D)

    def open(self, num_groups: int) -> None:
        """Begins a step."""
        self.steps.append(torch.zeros(num_groups, 0))

    def add(self, gradient_SD: Tensor, group_S: Tensor) -> None:
        """Adds a row of the step: the gradient by each scored token's last hidden state, and its group."""
        gradient_SD = gradient_SD.detach().float().cpu()
        sums = self.steps[-1]
        if sums.shape[1] == 0:
            sums = self.steps[-1] = torch.zeros(len(sums), gradient_SD.shape[1])
        sums.index_add_(0, group_S, gradient_SD)

    @staticmethod
    def of_all(parts: Sequence[GroupGradients]) -> GroupGradients:
        """The sums of all ranks, which take the same steps; one without a row has an empty tensor."""
        steps = zip(*(part.steps for part in parts), strict=True)
        return GroupGradients([_sum_of([each for each in step if each.numel()] or [step[0]]) for step in steps])

    def metrics(self) -> dict[str, float]:
        """Means over the steps of more than one group.

        hidden_grad_norm      the norm of the step's gradient by the offset
        hidden_grad_variance  its variance across groups: Σ|g - mean g|²/(groups - 1), where g is what the step's
                              gradient would be were all groups like that one
        """
        found = [_norm_and_variance(step) for step in self.steps if len(step) > 1 and step.numel()]
        if not found:
            return {}
        norms, variances = zip(*found, strict=True)
        return {
            "hidden_grad_norm": math.fsum(norms) / len(norms),
            "hidden_grad_variance": math.fsum(variances) / len(variances),
        }


def _sum_of(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _norm_and_variance(sums_GD: Tensor) -> tuple[float, float]:
    total_D, num_groups = sums_GD.sum(0), len(sums_GD)
    variance = ((num_groups * sums_GD - total_D) ** 2).sum() / (num_groups - 1)
    return total_D.norm().item(), variance.item()
