"""Keys and values in slots, and the attention over them: the layout for a CPU.

A sample that runs has one row of every layer's key and value tensors. One forward pass carries all the tokens of a step
in one packed row: first whole prompts (prefill), each attending to itself, then one token of every running sample
(decode), each attending to its slot. Prompts are stored before the samples attend, so a sample decodes in the same pass
that reads its prompt.

Shapes: R rows, H query heads, G key-value heads, D head size, S positions, N packed tokens, B running samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perilune.models.attention import causal_attention
from perilune.models.vision import PlacedImage
from services.rollout.engines.embedded import passes
from services.rollout.engines.embedded.sight import Piece, Sight, joined_positions

BLOCK_ROWS = 32  # rows that attention takes at once; it reads them all as far as the longest
_ROUND_TOKENS = 64  # slots grow in steps, not token by token


@dataclass(frozen=True)
class Prefill:
    """A prompt in the packed row, and the rows that begin with it."""

    start: int
    end: int
    rows: Tensor  # int64


class SlotPass:
    """The plan of one forward pass. Running samples have rows 0 to B - 1."""

    def __init__(self, slots: Slots, prefills: list[Prefill], positions: NDArray[np.int64]) -> None:
        """positions: where each running sample's token goes, [B]."""
        self.slots = slots
        self.prefills = prefills
        self.positions_B = torch.from_numpy(positions).to(slots.device)
        self.rows_B = torch.arange(len(positions), device=slots.device)
        self.blocks = blocks(positions)
        self._masks: dict[int | None, list[Tensor]] = {}

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        window: int | None,
        sinks_H: Tensor | None,
    ) -> Tensor:
        """See `passes.Pass`."""
        keys, values = self.slots.layer(layer, key, value)
        num_tokens = query.shape[2]
        attended = query.new_empty(num_tokens, query.shape[1], value.shape[-1])
        for prompt in self.prefills:
            span, length = slice(prompt.start, prompt.end), prompt.end - prompt.start
            keys[prompt.rows, :, :, :length] = key[:, :, span].mT
            values[prompt.rows, :, :length] = value[:, :, span]
            own = causal_attention(query[:, :, span], key[:, :, span], value[:, :, span], scaling, window, sinks_H)
            attended[span] = own[0].transpose(0, 1)
        decoded = slice(num_tokens - len(self.positions_B), num_tokens)
        keys[self.rows_B, :, :, self.positions_B] = key[0, :, decoded].transpose(0, 1)
        values[self.rows_B, :, self.positions_B] = value[0, :, decoded].transpose(0, 1)
        _attend_to_slots(query[0, :, decoded], keys, values, self, scaling, window, sinks_H, out=attended[decoded])
        return attended

    def masks(self, window: int | None, dtype: torch.dtype) -> list[Tensor]:
        """For each block [rows, 1, 1, S], additive: what each sample may attend to. Made once a step, not a layer."""
        if window not in self._masks:
            self._masks[window] = [self._mask(block, window, dtype) for block in self.blocks]
        return self._masks[window]

    def _mask(self, block: Block, window: int | None, dtype: torch.dtype) -> Tensor:
        positions_B1 = self.positions_B[block.rows, None]
        places_S = torch.arange(block.length, device=positions_B1.device)
        hidden_BS = places_S > positions_B1
        if window is not None:
            hidden_BS |= places_S <= positions_B1 - window
        mask_BS = torch.zeros(hidden_BS.shape, dtype=dtype, device=hidden_BS.device)
        return mask_BS.masked_fill_(hidden_BS, -torch.inf)[:, None, None, :]


@dataclass(frozen=True)
class Block:
    """Neighbouring rows, and the longest sample among them: none of them attends further."""

    rows: slice
    length: int


def blocks(positions: NDArray[np.int64]) -> list[Block]:
    """Cuts the rows into blocks of neighbours."""
    cut = [slice(start, min(start + BLOCK_ROWS, len(positions))) for start in range(0, len(positions), BLOCK_ROWS)]
    return [Block(rows, int(positions[rows].max()) + 1) for rows in cut]


def num_read(lengths: NDArray[np.int64]) -> int:
    """Positions that attention reads with rows in this order: each row as far as its block's longest."""
    padded = np.pad(lengths, (0, -len(lengths) % BLOCK_ROWS))
    return int(padded.reshape(-1, BLOCK_ROWS).max(1).sum()) * BLOCK_ROWS


class Prompt(NamedTuple):
    """What some samples begin with."""

    tokens: Sequence[int]
    rows: Sequence[int]  # of these samples
    images: Sequence[PlacedImage] = ()
    positions: NDArray[np.int64] | None = None  # (N,) or (3, N); the tokens' order, if not given


class SeenRows(NamedTuple):
    """What images change about running samples."""

    positions: NDArray[np.int64]  # of each newest token, as the model has them, [B]
    pieces: Sequence[Piece] = ()  # newest tokens that are slots; their offsets are rows


def _positions(prompt: Prompt) -> NDArray[np.int64]:
    return np.arange(len(prompt.tokens)) if prompt.positions is None else prompt.positions


class Slots:
    """The key-value tensors of all layers: values [R, G, S, D], keys [R, G, D, S] so
    that a decode step's products run along memory; made when a layer first writes."""

    def __init__(self, max_rows: int, max_tokens: int, device: torch.device) -> None:
        """At most `max_rows` rows, and rows × positions at most `max_tokens` unless one sample alone needs more."""
        self.device = device  # of the model
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._shape = (0, 0)  # rows, positions

    def reserve(self, num_rows: int, num_positions: int) -> None:
        """Makes room for so many rows of so many positions; what lies within stays."""
        rows, positions = self._shape
        if num_rows <= rows and num_positions <= positions:
            return
        positions = max(positions, -(-num_positions // _ROUND_TOKENS) * _ROUND_TOKENS)
        rows = max(rows, num_rows, min(2 * rows, self._max_rows))
        # Many short rows were followed by few long ones, or the reverse.
        self._shape = (rows, positions) if rows * positions <= self._max_tokens else (num_rows, num_positions)
        for index, (keys, values) in self._layers.items():
            self._layers[index] = _resized(keys.mT, self._shape).mT.contiguous(), _resized(values, self._shape)

    def copy(self, moves: list[tuple[int, int]], num_positions: int) -> None:
        """Copies rows onto others, (source, target) each: the first `num_positions` positions."""
        if not moves:
            return
        sources, targets = torch.tensor(moves, device=self.device).unbind(1)
        for keys, values in self._layers.values():
            keys[targets, :, :, :num_positions] = keys[sources, :, :, :num_positions]
            values[targets, :, :num_positions] = values[sources, :, :num_positions]

    @property
    def elements_per_token(self) -> int:
        """Numbers that a token's keys and values have in all layers that wrote so far."""
        return sum(
            keys.shape[1] * keys.shape[2] + values.shape[1] * values.shape[3] for keys, values in self._layers.values()
        )

    def forward(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        newest: Sequence[int],
        positions: NDArray[np.int64],
        sight: Sight | None = None,
        seen: SeenRows | None = None,
    ) -> Tensor:
        """One forward pass: reads new prompts into their rows, and gives running samples' next logits, [B, V].

        Args:
            model: set to passes.ATTENTION.
            prompts: without their samples' last tokens.
            newest: each running sample's last token, which is read now.
            positions: where it goes, [B].
            sight: the model's, where prompts may have images.
            seen: what images change about the running samples, if there are any.
        """
        tokens: list[int] = []
        spans: list[Prefill] = []
        pieces: list[Piece] = []
        for prompt in prompts:
            start, end = len(tokens), len(tokens) + len(prompt.tokens)
            spans.append(Prefill(start, end, torch.tensor(prompt.rows, device=self.device)))
            pieces.append(Piece(prompt.images, 0, len(prompt.tokens), start))
            tokens += prompt.tokens
        pieces += [piece._replace(offset=piece.offset + len(tokens)) for piece in seen.pieces] if seen else []
        places = joined_positions([*map(_positions, prompts), seen.positions if seen else positions])
        return passes.forward(
            model,
            SlotPass(self, spans, positions),
            torch.tensor([tokens + list(newest)], device=self.device),
            torch.from_numpy(places)[..., None, :].to(self.device),
            len(newest),
            sight.vectors(pieces) if sight else None,
        )

    def layer(self, index: int, key_like: Tensor, value_like: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values; made like these when it first writes."""
        if index not in self._layers:
            (rows, positions), (_, heads, _, size) = self._shape, key_like.shape
            # Zeros: what the mask hides is still multiplied by 0, and may hold anything but NaN.
            self._layers[index] = (
                key_like.new_zeros(rows, heads, size, positions),
                value_like.new_zeros(rows, heads, positions, value_like.shape[-1]),
            )
        return self._layers[index]


def _resized(old: Tensor, shape: tuple[int, int]) -> Tensor:
    new = old.new_zeros(shape[0], old.shape[1], shape[1], old.shape[3])
    rows, positions = min(old.shape[0], shape[0]), min(old.shape[2], shape[1])
    new[:rows, :, :positions] = old[:rows, :, :positions]
    return new


def _attend_to_slots(
    query_HBD: Tensor,
    keys: Tensor,
    values: Tensor,
    step: SlotPass,
    scaling: float | None,
    window: int | None,
    sinks_H: Tensor | None,
    out: Tensor,
) -> None:
    """Attention of one token a running sample to its slot, into `out`, [B, H, D].

    The query heads that share a key-value head are the rows of one product: every key and value is read once, and
    nothing is repeated in memory. On a CPU this is faster than the fused kernel, which is made for many queries.
    """
    num_heads, num_samples, size = query_HBD.shape
    kv_heads = keys.shape[1]
    scaled_HBD = query_HBD * (size**-0.5 if scaling is None else scaling)
    queries = scaled_HBD.view(kv_heads, num_heads // kv_heads, num_samples, size).permute(2, 0, 1, 3)
    for block, mask in zip(step.blocks, step.masks(window, queries.dtype), strict=True):
        scores = queries[block.rows] @ keys[block.rows, :, :, : block.length]
        scores.add_(mask)
        if sinks_H is not None:
            sinks = sinks_H.to(scores.dtype).view(1, kv_heads, -1, 1).expand(len(scores), -1, -1, 1)
            scores = torch.cat([scores, sinks], -1)
        weights = scores.softmax(-1)[..., : block.length]
        out[block.rows] = (weights @ values[block.rows, :, : block.length]).flatten(1, 2)
