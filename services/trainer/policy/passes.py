"""A policy's passes in training: in which precision they compute, and what they keep for the backward pass.

In bf16 a copy of the model computes, in the arithmetic that engines have; its gradients are added to the policy's own
weights, which stay float32, as their optimiser's state does. The copy is made of them when a batch begins and after
each step, and is gone between two batches. Of several ranks each puts together in bf16 what it computes with (FSDP2).
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from perilune.models.device import Device
from perilune.recipe import Recipe
from services.trainer.policy.layers import recompute_layers
from services.trainer.policy.logprobs import TokenLogprobs
from services.trainer.policy.packing import PackedRow
from services.trainer.ranks.group import Ranks
from services.trainer.ranks.sharding import shard


@dataclass(frozen=True)
class PassOptions:
    """Describes how passes compute."""

    precision: Literal["fp32", "bf16"] = "fp32"
    recomputes_layers: bool = False  # in the backward pass, from each layer's input
    temperature: float = 1.0  # of the distribution

    @staticmethod
    def of(recipe: Recipe) -> PassOptions:
        """The recipe's."""
        table = recipe.trainer
        return PassOptions(table.precision, table.activation_checkpointing == "layers", recipe.rollout.temperature)

    @property
    def dtype(self) -> torch.dtype | None:
        """Returns what passes compute in, where it is not the weights' own."""
        return torch.bfloat16 if self.precision == "bf16" else None


class Passes:
    """Passes of one model. Within `with`, they compute with the model as it is now, or as `follow` keeps it."""

    def __init__(self, model: PreTrainedModel, options: PassOptions, ranks: Ranks) -> None:
        """Of several ranks it is the first one's weights that all share, in place."""
        is_sharded = ranks.size > 1
        self._own = model
        self._pairs: list[tuple[Tensor, Tensor]] = []  # the policy's weights, and the copy's
        self.model = model  # that computes
        if options.dtype and not is_sharded:
            self.model = half_copy(model)
            self._pairs = list(zip(model.parameters(), self.model.parameters(), strict=True))
            for own, half in self._pairs:
                if half.requires_grad:
                    half.register_post_accumulate_grad_hook(partial(_hand_over, own))
            self._release()
        if options.recomputes_layers:
            recompute_layers(self.model)
        self._logprobs = TokenLogprobs(self.model, options.temperature)
        if is_sharded:
            shard(self._logprobs, ranks, options.dtype)

    def __call__(self, row: PackedRow, *arguments: Any) -> Tensor:
        """The log-probabilities of a row's scored tokens, float32, shape (S,), in nats; see `token_logprobs`."""
        found: Tensor = self._logprobs(row, *arguments)
        return found

    def follow(self, optimizer: Optimizer) -> None:
        """Has passes compute with what each step of an optimiser makes of the weights."""
        optimizer.register_step_post_hook(lambda *_: self._refresh())

    def forget_gradients(self) -> None:
        """Drops all gradients, also of a backward pass that was not finished."""
        for weight in (*self._own.parameters(), *(half for _, half in self._pairs)):
            weight.grad = None

    def __enter__(self) -> Passes:
        self._refresh()
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    @torch.no_grad()
    def _refresh(self) -> None:
        for own, half in self._pairs:
            half.data = own.to(half.dtype)

    @torch.no_grad()
    def _release(self) -> None:
        for _, half in self._pairs:
            half.data = half.new_empty(0)
            half.grad = None


def use_tensor_cores(device: Device) -> None:
    """Has a card multiply float32 in TF32, which has a mantissa of 10 bits and is many times as fast.

    NVIDIA_TF32_OVERRIDE=0, NVIDIA's own variable, keeps products exact.
    """
    if device.card and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
        torch.set_float32_matmul_precision("high")


def frozen_passes(model: PreTrainedModel, options: PassOptions, ranks: Ranks) -> TokenLogprobs:
    """Passes of a model that is never trained; in bf16 its own weights are rounded, in place."""
    logprobs = TokenLogprobs(model.requires_grad_(False), options.temperature)
    if ranks.size > 1:
        shard(logprobs, ranks, options.dtype)
    elif options.dtype:
        for own in model.parameters():
            own.data = own.data.to(options.dtype)
    return logprobs


def half_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model with its weights in bf16; buffers, such as position frequencies, stay as they are."""
    halves: dict[int, Any] = {
        id(own): nn.Parameter(own.detach().to(torch.bfloat16), requires_grad=own.requires_grad)
        for own in model.parameters()
    }
    return copy.deepcopy(model, halves)


def _hand_over(own: Tensor, half: Tensor) -> None:
    """Adds the gradient of a weight's copy to the weight's own, in float32."""
    assert half.grad is not None  # it has just been made
    own.grad = half.grad.to(own.dtype) if own.grad is None else own.grad.add_(half.grad)
    half.grad = None
