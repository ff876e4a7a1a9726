"""A decoder's layers: which they are, and how their activations are computed again instead of kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from perilune.errors import InvalidInputError


def decoder_layers(module: nn.Module) -> list[nn.Module]:
    """The decoder's layers: of all lists of modules the one with the most parameters."""
    lists = [each for each in module.modules() if isinstance(each, nn.ModuleList)]
    return list(max(lists, key=lambda each: sum(tensor.numel() for tensor in each.parameters()), default=[]))


def freeze_encoder(model: PreTrainedModel) -> None:
    """Has a model's image encoder stay as it is; in place. InvalidInputError: the model reads text alone."""
    if not hasattr(model, "get_image_features"):
        raise InvalidInputError(
            f'trainer.image_encoder = "frozen": {type(model).__name__} reads text only, and has no encoder of images'
        )
    encoder: Any = model.get_encoder(modality="image")
    encoder.requires_grad_(False)


def recompute_layers(module: nn.Module) -> None:
    """Has the backward pass compute each layer again from its input, which is all that is kept of it; in place.

    Gradients are the same. transformers' own switch works in training mode only, in which a policy never is.
    """
    for layer in decoder_layers(module):
        if not isinstance(layer.forward, _Recomputed):
            layer.forward = _Recomputed(layer.forward)


class _Recomputed(functools.partial[Any]):
    """A layer's forward function. A partial, so that a copy of the model calls the copy's layer."""

    def __new__(cls, forward: Callable[..., Any]) -> _Recomputed:
        return super().__new__(cls, _forward, forward)


def _forward(forward: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    # Layers in evaluation mode draw no random numbers, so there is no state of a generator to bring back.
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **keywords)
