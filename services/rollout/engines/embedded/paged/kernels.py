"""Says what a card has kernels of its own for: tokens' keys and values are stored in pages, tokens attend to them,
and the norm that is taken twice a layer.

This page has them in plain PyTorch: what a CPU computes with, and what the kernels for a card (`triton_kernels`) are
held against, in tests and on a card when an engine starts.

Shapes: N packed tokens, P blocks, K tokens of a block, T tiles, W blocks of the longest sample, H query heads, G
key-value heads, D head size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from services.rollout.engines.embedded.paged.blocks import BLOCK_TOKENS

logger = logging.getLogger(__name__)

MAX_GAPS = {2: 2e-2, 4: 1e-4}  # between the kernels of a card and this page, by the bytes of a number


@dataclass(frozen=True)
class Tiles:
    """Runs of neighbouring tokens of a packed row, and where the keys of their samples lie."""

    table: Tensor  # int32 [rows, W]: the blocks of each sample, in order
    tiles: Tensor  # int32 [T, 4]: row of the table, first token in the packed row, its position, number of tokens
    max_tokens: int  # of a tile


class Kernels(NamedTuple):
    """Functions on pages. Keys and values are (P, K, G, D)."""

    # (keys [G, N, D], values, stored keys, stored values, which tokens or None for all, where each goes)
    store: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor], None]
    # (queries [H, N, D], stored keys, stored values, tiles, scaling, window, sinks [H], out [N, H, D])
    attend: Callable[[Tensor, Tensor, Tensor, Tiles, float, int | None, Tensor | None, Tensor], None]
    # (numbers [N, size], weight [size], epsilon)
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    name: str
    # Nothing of them waits for the card, and what they launch depends on sizes alone: they can be recorded.
    can_record: bool


def store(key: Tensor, value: Tensor, keys: Tensor, values: Tensor, sources: Tensor | None, places: Tensor) -> None:
    """Writes tokens' keys and values into pages.

    Args:
        key: (G, N, D), and value.
        keys: (P, K, G, D), and values: changed here.
        sources: which tokens, int64; all in order if not given.
        places: where each goes: block × K + its place there, int64.
    """
    for new, pages in ((key, keys), (value, values)):
        tokens = new.transpose(0, 1)
        pages.view(-1, *pages.shape[2:])[places] = tokens if sources is None else tokens[sources]


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    tiles: Tiles,
    scaling: float,
    window: int | None,
    sinks_H: Tensor | None,
    out: Tensor,
) -> None:
    """Has every token of the tiles attend to its sample's keys up to its own position.

    Args:
        query: (H, N, D).
        keys: (P, K, G, D), and values: the tokens' own are stored already.
        tiles: which tokens, and where their samples lie.
        scaling: of the scores.
        window: how many positions back a token attends, its own too; all if not given.
        sinks_H: a score beside those of the keys, which takes its share and gives nothing.
        out: (N, H, D): the rows of these tokens are written.
    """
    rows, first_T, position_T, count_T = tiles.tiles.long().unbind(1)
    num_kv_heads, num_keys = keys.shape[2], int((position_T + count_T).max())
    blocks = tiles.table[rows, : -(-num_keys // BLOCK_TOKENS)].long()
    offset = torch.arange(tiles.max_tokens, device=query.device)
    token_TQ, is_token_TQ = first_T[:, None] + offset, offset < count_T[:, None]
    queries = query[:, token_TQ.clamp(max=query.shape[1] - 1)].float()  # H, T, Q, D
    queries = queries.unflatten(0, (num_kv_heads, -1)).permute(2, 0, 1, 3, 4)  # T, G, H / G, Q, D
    place_S = torch.arange(blocks.shape[1] * BLOCK_TOKENS, device=query.device)
    hidden_TQS = place_S > (position_T[:, None] + offset)[..., None]
    if window is not None:
        hidden_TQS |= place_S <= (position_T[:, None] + offset - window)[..., None]
    # What lies past a sample's end is of others, or of none: it is hidden, but NaN times 0 is NaN.
    is_own_TS = (place_S < (position_T + count_T)[:, None])[..., None, None]
    key_TSGD = torch.where(is_own_TS, keys[blocks].flatten(1, 2).float(), 0.0)
    value_TSGD = torch.where(is_own_TS, values[blocks].flatten(1, 2).float(), 0.0)
    scores = torch.einsum("tghqd,tsgd->tghqs", queries, key_TSGD) * scaling
    scores = scores.masked_fill(hidden_TQS[:, None, None], -torch.inf)
    if sinks_H is not None:
        sinks = sinks_H.float().view(1, num_kv_heads, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], -1)
    weights = scores.softmax(-1)[..., : len(place_S)]
    attended = torch.einsum("tghqs,tsgd->tqghd", weights, value_TSGD).flatten(2, 3)
    out[token_TQ[is_token_TQ]] = attended[is_token_TQ].to(out.dtype)


def rms_norm(numbers: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Divides rows by their root mean square, in float32, and weights them in their own dtype: as Llama and most do."""
    wide = numbers.float()
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * scaled.to(numbers.dtype)


PLAIN = Kernels(store, attend, rms_norm, "in plain PyTorch", can_record=False)


def find_kernels(device: torch.device, dtype: torch.dtype) -> Kernels:
    """The kernels for a device: Triton's on a card, if they compute there what this page does."""
    if device.type != "cuda":
        return PLAIN
    try:
        from services.rollout.engines.embedded.paged.triton_kernels import TRITON

        gap = compare(TRITON, device, dtype)
    except Exception as error:  # noqa: BLE001 - a compiler, a driver and a card decide what comes
        logger.warning("Triton's kernels cannot be used (%s: %s): attention is slow", type(error).__name__, error)
        return PLAIN
    if not gap < MAX_GAPS[dtype.itemsize]:
        logger.warning("Triton's kernels are off by %.2g on this card and not used: attention is slow", gap)
        return PLAIN
    return TRITON


@torch.inference_mode()
def compare(kernels: Kernels, device: torch.device, dtype: torch.dtype) -> float:
    """The largest difference between these kernels' results and those of this page, relative where they are large.

    Two samples attend: one of 40 tokens, and one that decodes its third token.
    """
    random = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    query, key, value, sinks, norm = made(4, 41, 64), made(2, 41, 64), made(2, 41, 64), made(4), made(64)
    table = torch.tensor([[1, 2, 3], [4, 4, 4]], dtype=torch.int32, device=device)
    tiles = torch.tensor([[0, 0, 0, 16], [0, 16, 16, 16], [0, 32, 32, 8], [1, 40, 2, 1]], device=device).int()
    places = torch.cat([torch.arange(16, 56, device=device), torch.tensor([66], device=device)])
    found: dict[str, list[Tensor]] = {"kernels": [], "plain": []}
    for results, each in zip(found.values(), (kernels, PLAIN), strict=True):
        keys, values = (key.new_zeros(5, BLOCK_TOKENS, 2, 64) for _ in range(2))
        each.store(key, value, keys, values, None, places)
        for window, those in ((None, None), (7, sinks)):
            out = query.new_zeros(41, 4, 64)
            each.attend(query, keys, values, Tiles(table, tiles[:3], BLOCK_TOKENS), 0.125, window, those, out)
            each.attend(query, keys, values, Tiles(table, tiles[3:], 1), 0.125, window, those, out)
            results.append(out)
        results += [keys, values, each.rms_norm(key[0], norm, 1e-6)]
    pairs = zip(*found.values(), strict=True)
    return max(float(((one - other).abs() / (1 + other.abs())).float().max()) for one, other in pairs)
