"""Causal attention within sequences of one length, of all positions or of the last ones.

A sliding window is computed by chunks of queries, each of which reads only the keys that its window reaches: no mask is
larger than a chunk, and what the window hides is not computed.

Shapes: N sequences, H query heads, G key-value heads, L positions, Q positions that attend, D head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

MIN_CHUNK = 256  # queries of a window that are computed together; a narrower window gains nothing by fewer

# cuDNN plans each new shape, which takes 66 ms where the attention itself takes 0.06 ms, and lengths are always new.
KERNELS_WITHOUT_PLANS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def causal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None = None,
    window: int | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """Causal attention within sequences of one length, (N, H, Q, D).

    Args:
        query: (N, H, Q, D), of the last Q positions: of all, or of those that were read last.
        key: (N, G, L, D); so many query heads share each as there are more of them.
        value: as key, its D may be another.
        scaling: of the scores; the square root of D divides them if not given.
        window: how many positions back a query reads, itself too; all if not given.
        sinks_H: attention sinks: a score beside those of the keys, which takes its share and gives nothing.
    """
    num_queries, length = query.shape[2], key.shape[2]
    if num_queries == length and (window is None or length <= window):
        return _attend(query, key, value, None, scaling, sinks_H)
    reach, masks, parts = window or length, dict[tuple[int, int], Tensor](), []
    for queries, keys in _spans(num_queries, length, reach):
        shape = queries.stop - queries.start, keys.stop - keys.start
        if shape not in masks:
            masks[shape] = _band(*shape, reach, query.device)
        parts.append(_attend(query[:, :, queries], key[:, :, keys], value[:, :, keys], masks[shape], scaling, sinks_H))
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]


def _spans(num_queries: int, length: int, reach: int) -> Iterator[tuple[slice, slice]]:
    """Chunks of the last queries, each with the keys that it reads."""
    chunk, before = max(MIN_CHUNK, reach // 2), length - num_queries
    for start in range(0, num_queries, chunk):
        end = min(start + chunk, num_queries)
        yield slice(start, end), slice(max(0, before + start - reach + 1), before + end)


def _band(num_queries: int, num_keys: int, window: int, device: torch.device) -> Tensor:
    """Returns what the last queries of a sequence read of its last keys, (num_queries, num_keys)."""
    places = torch.arange(num_keys, device=device)
    distance = places[num_keys - num_queries :, None] - places
    return (distance >= 0) & (distance < window)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, sinks_H: Tensor | None
) -> Tensor:
    """Attention of torch's: with a mask (L, keys), or else causal."""
    if sinks_H is not None:
        key, value, mask = _with_sink(key, value, mask, sinks_H)
    is_grouped = query.shape[1] != key.shape[1]
    if is_grouped and query.is_cuda and (mask is not None or query.dtype == torch.float32):
        # Only flash attention reads grouped heads there: anything else would keep every score in memory.
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
        is_grouped = False
    with _without_plans(query.device):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=is_grouped
        )


def _without_plans(device: torch.device) -> AbstractContextManager[None]:
    return sdpa_kernel(KERNELS_WITHOUT_PLANS) if device.type == "cuda" else contextlib.nullcontext()


def _with_sink(key: Tensor, value: Tensor, mask: Tensor | None, sinks_H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A sink as one more key: zeros, which score 0 with every query, so that the mask there is the sink's score."""
    if mask is None:
        length = key.shape[2]
        mask = torch.ones(length, length, dtype=torch.bool, device=key.device).tril()
    hidden = torch.zeros(mask.shape, dtype=key.dtype, device=key.device).masked_fill(~mask, -torch.inf)
    sinks = sinks_H.to(key.dtype)[:, None, None].expand(-1, mask.shape[0], 1)
    scores = torch.cat([hidden.expand(len(sinks_H), -1, -1), sinks], -1)
    return F.pad(key, (0, 0, 0, 1)), F.pad(value, (0, 0, 0, 1)), scores
