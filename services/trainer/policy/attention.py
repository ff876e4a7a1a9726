"""Attention inside each sequence of a packed row, as an attention function of Hugging Face's own interface.

A block-diagonal mask over the whole row would compute, and on a CPU also store, every pair of tokens of the row. Here
the row is cut into blocks of sequences of similar length, each block is padded, and PyTorch's causal attention runs on
it without any mask: padding sits at the end, where causality already hides it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from perilune.errors import InvalidInputError
from perilune.models.attention import causal_attention, use_attention
from services.trainer.policy.packing import Block

NAME = "perilune_packed"


def use_packed_attention(model: PreTrainedModel) -> None:
    """Makes a model's attention read the `blocks` argument of its forward call.

    InvalidInputError for a model whose layers would mix the sequences of a row in some other way.
    """
    use_attention(
        model,
        NAME,
        packed_attention,
        "several sequences cannot share a row of it: choose a model with plain attention layers (Llama, Qwen, Mistral, "
        "Gemma, ...)",
    )


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
    outputs = []
    for block in blocks:
        q, k, v = (_pad(tensor[0, :, block.begin : block.end].transpose(0, 1), block) for tensor in (query, key, value))
        out = causal_attention(q, k, v, scaling, sliding_window, s_aux)
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
