"""Attention of our own in a Hugging Face model: how it is put in, and the causal attention that all kinds share.

Shapes: N sequences, H query heads, G key-value heads, L positions, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from perilune.errors import InvalidInputError


def use_attention(model: PreTrainedModel, name: str, attend: Callable[..., Any], instead: str) -> None:
    """Has a model's layers call a function of ours for attention.

    Args:
        model: a model of transformers.
        name: of the function there; starts with `perilune_`.
        attend: see transformers.AttentionInterface.
        instead: what to do about a model that has attention code of its own, for the message.

    Raises:
        InvalidInputError: the model has attention code of its own.
    """
    if not model._supports_attention_backend:
        raise InvalidInputError(
            f"{type(model).__name__} has attention code of its own, and takes no other attention function; {instead}"
        )
    AttentionInterface.register(name, attend)
    model.set_attn_implementation(name)


def causal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None = None,
    window: int | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """Causal attention within sequences of one length, (N, H, L, D).

    Args:
        query: (N, H, L, D).
        key: (N, G, L, D); so many query heads share each as there are more of them.
        value: as key, its D may be another.
        scaling: of the scores; the square root of D divides them if not given.
        window: how many positions back a query reads, itself too; all if not given.
        sinks_H: attention sinks: a score beside those of the keys, which takes its share and gives nothing.
    """
    is_grouped = query.shape[1] != key.shape[1]
    mask = _window_mask(query.shape[2], window, query.device)
    if sinks_H is not None:
        key, value, mask = _with_sink(key, value, mask, sinks_H)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=is_grouped
    )


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """The banded causal mask of a sliding window; None where the window is wider than the sequences."""
    if window is None or length <= window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


def _with_sink(key: Tensor, value: Tensor, mask: Tensor | None, sinks_H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A sink as one more key: zeros, which score 0 with every query, so that the mask there is the sink's score."""
    length = key.shape[2]
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=key.device).tril()
    hidden = torch.zeros(mask.shape, dtype=key.dtype, device=key.device).masked_fill(~mask, -torch.inf)
    sinks = sinks_H.to(key.dtype)[:, None, None].expand(-1, length, 1)
    scores = torch.cat([hidden.expand(len(sinks_H), -1, -1), sinks], -1)
    return F.pad(key, (0, 0, 0, 1)), F.pad(value, (0, 0, 0, 1)), scores
