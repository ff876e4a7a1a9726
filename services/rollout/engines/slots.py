"""Keys and values in slots, and the attention over them.

A sample that runs has one row of every layer's key and value tensors. The function `attend` is plugged into a Hugging
Face model by its attention interface, so that any model which uses that interface decodes here unchanged. One forward
pass carries all the tokens of a step in one packed row: first whole prompts (prefill), each attending to itself, then
one token of every running sample (decode), each attending to its slot. Prompts are stored before the samples
attend, so a sample decodes in the same pass that reads its prompt.

Shapes: R rows, H query heads, G key-value heads, D head size, S positions, N packed tokens, B running samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from perilune.errors import InvalidInputError

ATTENTION = "perilune_slots"
_ROUND_TOKENS = 64  # slots grow in steps, not token by token


@dataclass(frozen=True)
class Prefill:
    """A prompt in the packed row, and the rows that begin with it."""

    start: int
    end: int
    rows: Tensor  # int64


@dataclass(frozen=True)
class Step:
    """What one forward pass does. Running samples have rows 0 to B - 1."""

    slots: Slots
    prefills: list[Prefill]
    positions_B: Tensor  # int64: where each running sample's token goes
    length: int  # the longest running sample, this token included
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    @cached_property
    def rows_B(self) -> Tensor:
        return torch.arange(len(self.positions_B))

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """[B, 1, 1, S], additive: what each sample may attend to; made once a step for every kind of layer."""
        if window not in self.masks:
            places_S = torch.arange(self.length)
            hidden_BS = places_S > self.positions_B[:, None]
            if window is not None:
                hidden_BS |= places_S <= self.positions_B[:, None] - window
            zeros_BS = torch.zeros(hidden_BS.shape, dtype=dtype)
            self.masks[window] = zeros_BS.masked_fill_(hidden_BS, -torch.inf)[:, None, None, :]
        return self.masks[window]


class Slots:
    """The key-value tensors of all layers, [R, G, S, D] each, made when a layer first writes."""

    def __init__(self, max_rows: int, max_tokens: int) -> None:
        """At most `max_rows` rows, and rows × positions at most `max_tokens` unless one sample alone needs more."""
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
            self._layers[index] = _resized(keys, self._shape), _resized(values, self._shape)

    def copy(self, moves: list[tuple[int, int]], num_positions: int) -> None:
        """Copies rows onto others, (source, target) each: the first `num_positions` positions."""
        if not moves:
            return
        sources, targets = torch.tensor(moves).unbind(1)
        for keys, values in self._layers.values():
            keys[targets, :, :num_positions] = keys[sources, :, :num_positions]
            values[targets, :, :num_positions] = values[sources, :, :num_positions]

    def layer(self, index: int, key_like: Tensor, value_like: Tensor) -> tuple[Tensor, Tensor]:
        if index not in self._layers:
            shape = self._shape[0], key_like.shape[1], self._shape[1]
            # Zeros: what the mask hides is still multiplied by 0, and may hold anything but NaN.
            self._layers[index] = (
                key_like.new_zeros(*shape, key_like.shape[-1]),
                value_like.new_zeros(*shape, value_like.shape[-1]),
            )
        return self._layers[index]


def _resized(old: Tensor, shape: tuple[int, int]) -> Tensor:
    new = old.new_zeros(shape[0], old.shape[1], shape[1], old.shape[3])
    rows, positions = min(old.shape[0], shape[0]), min(old.shape[2], shape[1])
    new[:rows, :, :positions] = old[:rows, :, :positions]
    return new


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    step: Step,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Attention of one layer over one packed row. See transformers.AttentionInterface.

    Args:
        query: [1, H, N, D]; key and value: [1, G, N, D]; positions are already in them.
        step: passed to the model's forward, and by it to every layer.

    Returns:
        [1, N, H, D], and no attention weights.
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if others.get(name) is not None:
            raise InvalidInputError(f"the torch engine has no attention with {name}; use another engine for this model")
    keys, values = step.slots.layer(module.layer_idx, key, value)  # type: ignore[arg-type]
    parts = []
    for prompt in step.prefills:
        span = slice(prompt.start, prompt.end)
        keys[prompt.rows, :, : prompt.end - prompt.start] = key[:, :, span]
        values[prompt.rows, :, : prompt.end - prompt.start] = value[:, :, span]
        parts.append(_attend_to_itself(query[:, :, span], key[:, :, span], value[:, :, span], scaling, sliding_window))
    first = query.shape[2] - len(step.positions_B)
    keys[step.rows_B, :, step.positions_B] = key[0, :, first:].transpose(0, 1)
    values[step.rows_B, :, step.positions_B] = value[0, :, first:].transpose(0, 1)
    parts.append(_attend_to_slots(query[0, :, first:], keys, values, step, scaling, sliding_window))
    return (torch.cat(parts) if len(parts) > 1 else parts[0])[None], None


def _attend_to_itself(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """Causal attention inside one prompt of length T: [T, H, D]."""
    mask = None
    if window is not None and query.shape[2] > window:
        places = torch.arange(query.shape[2])
        mask = (places <= places[:, None]) & (places > places[:, None] - window)
    attended = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )
    return attended[0].transpose(0, 1)


def _attend_to_slots(
    query_HBD: Tensor, keys: Tensor, values: Tensor, step: Step, scaling: float | None, window: int | None
) -> Tensor:
    """Attention of one token a running sample to its slot: [B, H, D].

    The query heads that share a key-value head stand where the kernel expects query positions: it then reads every
    key and value once, and nothing is repeated in memory.
    """
    num_heads, num_samples, size = query_HBD.shape
    kv_heads = keys.shape[1]
    queries = query_HBD.view(kv_heads, num_heads // kv_heads, num_samples, size).permute(2, 0, 1, 3)
    attended = scaled_dot_product_attention(
        queries,
        keys[:num_samples, :, : step.length],
        values[:num_samples, :, : step.length],
        attn_mask=step.mask(window, queries.dtype),
        scale=scaling,
    )
    return attended.reshape(num_samples, num_heads, attended.shape[-1])


AttentionInterface.register(ATTENTION, attend)
