"""Attention inside each sequence of a packed row, as an attention function of Hugging Face's own interface.

A block-diagonal mask over the whole row would compute, and on a CPU also store, every pair of tokens of the row. Here
the row is cut into blocks of sequences of similar length, each block is padded, and PyTorch's causal attention runs on
it without any mask: padding sits at the end, where causality already hides it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from perilune.errors import InvalidInputError
from services.trainer.policy.packing import Block

NAME = "perilune_packed"


def use_packed_attention(model: PreTrainedModel) -> None:
    """Makes a model's attention read the `blocks` argument of its forward call.

    InvalidInputError for a model whose layers would mix the sequences of a row in some other way.
    """
    if not model._supports_attention_backend:
        raise InvalidInputError(
            f"{type(model).__name__} does not take an attention function, so several sequences cannot share a row; "
            "choose a model with plain attention layers (Llama, Qwen, Mistral, Gemma, ...)"
        )
    ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    blocks: list[Block],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence.

    Args:
        module: the attention layer; unused, part of the interface.
        query: (1, H, T, D); key and value may have fewer heads, as many queries sharing each.
        attention_mask: always None: models make no mask for an attention function that they don't know.
        blocks: the row's layout.
        s_aux: (H,) attention sinks: a score beside those of the keys, which takes its share and gives nothing.

    Returns:
        (1, T, H, D), and no attention weights.
    """
    if softcap is not None:
        raise InvalidInputError("this model caps its attention scores, which packed attention does not do")
    grouped = query.shape[1] != key.shape[1]
    outputs = []
    for block in blocks:
        q, k, v = (_pad(tensor[0, :, block.begin : block.end].transpose(0, 1), block) for tensor in (query, key, value))
        mask = _window_mask(block.length, sliding_window, query.device)
        if s_aux is not None:
            k, v, mask = _with_sink(k, v, mask, s_aux)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
        outputs.append(_unpad(out, block))
    return torch.cat(outputs)[None] if len(outputs) > 1 else outputs[0][None], None


def _pad(tokens_THD: Tensor, block: Block) -> Tensor:
    """(tokens, H, D) to (num_sequences, H, length, D)."""
    if block.slots is not None:
        num_slots = block.num_sequences * block.length
        tokens_THD = tokens_THD.new_zeros(num_slots, *tokens_THD.shape[1:]).index_copy(0, block.slots, tokens_THD)
    return tokens_THD.unflatten(0, (block.num_sequences, block.length)).transpose(1, 2)


def _unpad(padded_NHLD: Tensor, block: Block) -> Tensor:
    tokens = padded_NHLD.transpose(1, 2).flatten(0, 1)
    return tokens if block.slots is None else tokens.index_select(0, block.slots)


def _with_sink(key: Tensor, value: Tensor, mask: Tensor | None, sinks_H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A sink as one more key: zeros, which score 0 with every query, so that the mask there is the sink's score."""
    length = key.shape[2]
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=key.device).tril()
    hidden = torch.zeros(mask.shape, dtype=key.dtype, device=key.device).masked_fill(~mask, -torch.inf)
    sinks = sinks_H.to(key.dtype)[:, None, None].expand(-1, length, 1)
    scores = torch.cat([hidden.expand(len(sinks_H), -1, -1), sinks], -1)
    return F.pad(key, (0, 0, 0, 1)), F.pad(value, (0, 0, 0, 1)), scores


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """The banded causal mask of a sliding window; None where the window is wider than the sequences."""
    if window is None or length <= window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)
