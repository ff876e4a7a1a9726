"""Optimisers and their learning rates, as the recipe says."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, AdamW, Optimizer

from perilune.errors import InvalidInputError
from perilune.recipe import StageBase, TrainerTable


class DivergedError(InvalidInputError):
    """Training left the numbers: a gradient is infinite or not a number."""


def make_optimizer(parameters: Iterable[Parameter], table: TrainerTable) -> Optimizer:
    """The recipe's optimiser, with no state yet."""
    parameters = list(parameters)
    if table.optimizer == "sgd":
        is_sharded = isinstance(parameters[0], DTensor)  # for which torch has no fused SGD
        return SGD(parameters, lr=table.learning_rate, weight_decay=table.weight_decay, fused=not is_sharded)
    return AdamW(parameters, lr=table.learning_rate, betas=table.betas, weight_decay=table.weight_decay, fused=True)


def learning_rate(table: TrainerTable, iteration: int) -> float:
    """The rate of an iteration: a ramp over the first ones, times a line from the first rate to the final one."""
    ramp = min(1.0, (iteration + 1) / max(1, table.learning_rate_warmup_iterations))
    if table.final_learning_rate is None:
        return ramp * table.learning_rate
    progress = min(1.0, iteration / max(1, table.num_iterations - 1))
    return ramp * (table.learning_rate + progress * (table.final_learning_rate - table.learning_rate))


def stage_learning_rate(peak: float, step: int, num_steps: int, table: StageBase | None = None) -> float:
    """The rate of a step of a stage: a ramp up to the peak, times the table's schedule down to its final rate.

    Without a table: a tenth of the steps, at most 50, up; a half cosine down to 0.
    """
    given = table.warmup_steps if table else None
    num_up = min(50, num_steps // 10) if given is None else given
    ramp = min(1.0, (step + 1) / max(1, num_up))
    final = table.final_learning_rate if table else 0.0
    match table.schedule if table else "cosine":
        case "constant":
            return peak * ramp
        case "linear":
            return ramp * final + (peak - final) * ramp * (1 - step / num_steps)
        case _:
            return ramp * final + (peak - final) * ramp * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def step(optimizer: Optimizer, rate: float, max_grad_norm: float) -> Tensor:
    """One optimiser step on the gradients that lie there, clipped; returns their norm before clipping, and clears them.

    DivergedError if the norm is not finite; the weights are then as they were.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # over all ranks
    clip_grads_with_norm_(parameters, max_grad_norm, norm)
    if not torch.isfinite(norm):
        raise DivergedError(f"the gradient's norm is {norm.item()}; lower the learning rate")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return norm
