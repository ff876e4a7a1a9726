"""The kernels of pages for a card, in Triton. They compute what `kernels` does; that page has the shapes.

One program has a tile of tokens and one key-value head: the query heads that share it are rows of one product, so that
every key and value is read once. The keys of a tile can be cut into splits, each of a program of its own, whose results
are then put together: few rows with long contexts would leave most of a card idle. What a program reads follows from
positions that lie on the card, so a launch depends on the number of tiles alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from services.rollout.engines.embedded.paged.blocks import BLOCK_TOKENS
from services.rollout.engines.embedded.paged.kernels import Kernels, Tiles

NUM_PROGRAMS = 512  # that keep a large card busy: tiles are split until there are so many
MAX_SPLITS = 16
QUERY_ROWS = 64  # tokens of a tile times the heads that share a key, at most
KEYS = 64  # that a program reads at once


@triton.jit
def _store(
    key, value, keys, values, sources, places,
    key_head, key_token, value_head, value_token,
    HEADS: tl.constexpr, SIZE: tl.constexpr, VALUE_SIZE: tl.constexpr,
    HEADS_2: tl.constexpr, SIZE_2: tl.constexpr, VALUE_SIZE_2: tl.constexpr, HAS_SOURCES: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    source = tl.load(sources + number) if HAS_SOURCES else number.to(tl.int64)
    place = tl.load(places + number).to(tl.int64)
    head = tl.arange(0, HEADS_2)[:, None]
    column = tl.arange(0, SIZE_2)[None, :]
    inside = (head < HEADS) & (column < SIZE)
    new = tl.load(key + head * key_head + source * key_token + column, mask=inside, other=0.0)
    tl.store(keys + (place * HEADS + head) * SIZE + column, new, mask=inside)
    column = tl.arange(0, VALUE_SIZE_2)[None, :]
    inside = (head < HEADS) & (column < VALUE_SIZE)
    new = tl.load(value + head * value_head + source * value_token + column, mask=inside, other=0.0)
    tl.store(values + (place * HEADS + head) * VALUE_SIZE + column, new, mask=inside)


@triton.jit
def _span(position, count, window, split, KEYS: tl.constexpr, SPLITS: tl.constexpr, HAS_WINDOW: tl.constexpr):
    """The keys of one split: from, to."""
    start = 0
    if HAS_WINDOW:
        start = tl.maximum(position - window + 1, 0)
    length = position + count
    share = tl.cdiv(tl.cdiv(length - start, SPLITS), KEYS) * KEYS
    start += split * share
    return start, tl.minimum(start + share, length)


@triton.jit
def _attend(
    query, keys, values, table, tiles, sinks, out, sums, peaks,
    scaling, window, table_row, query_head, query_token,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, VALUE_SIZE: tl.constexpr,
    SIZE_2: tl.constexpr, VALUE_SIZE_2: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_SINKS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.load(tiles + tile * 4).to(tl.int64)
    first = tl.load(tiles + tile * 4 + 1).to(tl.int64)
    position = tl.load(tiles + tile * 4 + 2)
    count = tl.load(tiles + tile * 4 + 3)

    rows = tl.arange(0, ROWS)
    offset = rows // GROUP
    head = kv_head * GROUP + rows % GROUP
    is_row = offset < count
    token = first + offset
    column = tl.arange(0, SIZE_2)
    value_column = tl.arange(0, VALUE_SIZE_2)
    queries = tl.load(
        query + head[:, None] * query_head + token[:, None] * query_token + column[None, :],
        mask=is_row[:, None] & (column < SIZE)[None, :],
        other=0.0,
    )

    start, end = _span(position, count, window, split, KEYS, SPLITS, HAS_WINDOW)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, VALUE_SIZE_2], tl.float32)
    if HAS_SINKS:  # noqa: SIM102 - this is a condition of compilation, the next one of the program
        if split == 0:
            peak = tl.load(sinks + head, mask=is_row, other=0.0).to(tl.float32)
            total = tl.full([ROWS], 1.0, tl.float32)
    for begin in range(start, end, KEYS):
        place = begin + tl.arange(0, KEYS)
        is_key = place < end
        block = tl.load(table + row * table_row + place // BLOCK, mask=is_key, other=0).to(tl.int64)
        stored = (block * BLOCK + place % BLOCK) * KV_HEADS + kv_head
        key = tl.load(
            keys + stored[None, :] * SIZE + column[:, None],
            mask=is_key[None, :] & (column < SIZE)[:, None],
            other=0.0,
        )
        scores = tl.dot(queries, key, input_precision=PRECISION) * scaling
        seen = is_key[None, :] & (place[None, :] <= (position + offset)[:, None])
        if HAS_WINDOW:
            seen = seen & (place[None, :] > (position + offset - window)[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - safe[:, None])
        shrunk = tl.exp(peak - safe)
        total = total * shrunk + tl.sum(weights, 1)
        value = tl.load(
            values + stored[:, None] * VALUE_SIZE + value_column[None, :],
            mask=is_key[:, None] & (value_column < VALUE_SIZE)[None, :],
            other=0.0,
        )
        summed = summed * shrunk[:, None] + tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        peak = higher

    inside = is_row[:, None] & (value_column < VALUE_SIZE)[None, :]
    place = token * (KV_HEADS * GROUP) + head
    if SPLITS == 1:
        attended = (summed / total[:, None]).to(out.dtype.element_ty)
        tl.store(out + place[:, None] * VALUE_SIZE + value_column[None, :], attended, mask=inside)
    else:
        place = place * SPLITS + split
        tl.store(sums + place[:, None] * VALUE_SIZE + value_column[None, :], summed, mask=inside)
        tl.store(peaks + place * 2, peak, mask=is_row)
        tl.store(peaks + place * 2 + 1, total, mask=is_row)


@triton.jit
def _join(
    sums, peaks, tiles, out,
    HEADS: tl.constexpr, VALUE_SIZE: tl.constexpr, VALUE_SIZE_2: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Puts the splits of one token and head together. A tile has one token here."""
    token = tl.load(tiles + tl.program_id(0) * 4 + 1).to(tl.int64)
    place = token * HEADS + tl.program_id(1)
    split = tl.arange(0, SPLITS)
    column = tl.arange(0, VALUE_SIZE_2)
    peak = tl.load(peaks + (place * SPLITS + split) * 2)
    total = tl.load(peaks + (place * SPLITS + split) * 2 + 1)
    share = tl.exp(peak - tl.max(peak, 0))
    summed = tl.load(
        sums + (place * SPLITS + split)[:, None] * VALUE_SIZE + column[None, :],
        mask=(column < VALUE_SIZE)[None, :],
        other=0.0,
    )
    attended = tl.sum(summed * share[:, None], 0) / tl.sum(total * share, 0)
    tl.store(out + place * VALUE_SIZE + column, attended.to(out.dtype.element_ty), mask=column < VALUE_SIZE)


def store(key: Tensor, value: Tensor, keys: Tensor, values: Tensor, sources: Tensor | None, places: Tensor) -> None:
    """See `kernels.store`."""
    heads, size, value_size = keys.shape[2], keys.shape[3], values.shape[3]
    key, value = _dense(key), _dense(value)
    _store[(len(places),)](
        key, value, keys, values, places if sources is None else sources, places,
        key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        heads, size, value_size, _power(heads), _power(size), _power(value_size), sources is not None,
    )  # fmt: skip


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
    """See `kernels.attend`."""
    num_heads, num_tokens, size = query.shape
    kv_heads, value_size = keys.shape[2], values.shape[3]
    group, num_tiles = num_heads // kv_heads, len(tiles.tiles)
    splits = num_splits(num_tiles * kv_heads) if tiles.max_tokens == 1 else 1
    query = _dense(query)
    sums, peaks = out, out
    if splits > 1:
        sums = out.new_empty(num_tokens, num_heads, splits, value_size, dtype=torch.float32)
        peaks = out.new_empty(num_tokens, num_heads, splits, 2, dtype=torch.float32)
    _attend[(num_tiles, kv_heads, splits)](
        query, keys, values, tiles.table, tiles.tiles, out if sinks_H is None else sinks_H, out, sums, peaks,
        scaling, window or 0, tiles.table.stride(0), query.stride(0), query.stride(1),
        kv_heads, group, size, value_size, _power(size), _power(value_size),
        max(16, _power(group * tiles.max_tokens)), KEYS, BLOCK_TOKENS, splits, window is not None,
        sinks_H is not None, "ieee" if query.dtype == torch.float32 else "tf32",
    )  # fmt: skip
    if splits > 1:
        _join[(num_tiles, num_heads)](sums, peaks, tiles.tiles, out, num_heads, value_size, _power(value_size), splits)


def num_splits(num_programs: int) -> int:
    """Into how many parts the keys of each tile are cut, a power of two.

    >>> num_splits(8), num_splits(512), num_splits(1000)
    (16, 1, 1)
    """
    splits = 1
    while splits < MAX_SPLITS and 2 * splits * num_programs <= NUM_PROGRAMS:
        splits *= 2
    return splits


def _power(size: int) -> int:
    """The power of two that holds so many, at least 16: what a product on a card takes."""
    return max(16, triton.next_power_of_2(size))


def _dense(heads: Tensor) -> Tensor:
    """A token's numbers of one head lie side by side."""
    return heads if heads.stride(-1) == 1 else heads.contiguous()


@triton.jit
def _rms_norm(numbers, weight, out, epsilon, SIZE: tl.constexpr, SIZE_2: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * SIZE
    column = tl.arange(0, SIZE_2)
    number = tl.load(numbers + row + column, mask=column < SIZE, other=0.0)
    wide = number.to(tl.float32)
    scaled = (wide * tl.rsqrt(tl.sum(wide * wide, 0) / SIZE + epsilon)).to(number.dtype)
    tl.store(out + row + column, tl.load(weight + column, mask=column < SIZE, other=0.0) * scaled, mask=column < SIZE)


def rms_norm(numbers: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See `kernels.rms_norm`."""
    numbers = numbers.contiguous()
    out = torch.empty_like(numbers)
    size = numbers.shape[-1]
    _rms_norm[(numbers.numel() // size,)](numbers, weight, out, epsilon, size, _power(size))
    return out


TRITON = Kernels(store, attend, rms_norm, "by Triton", can_record=True)
