"""Attention inside each sequence of a packed row, as an attention function of Hugging Face's own interface.

A block-diagonal mask over the whole row would compute, and on a CPU also store, every pair of tokens of the row;
`perilune.models.attention.packed` says what is done instead.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from perilune.errors import InvalidInputError
from perilune.models.attention import Layout, packed_causal_attention, use_attention

NAME = "perilune_packed"


def use_packed_attention(model: PreTrainedModel) -> None:
    """Makes a model's attention read the `layout` argument of its forward call.

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
    layout: Layout,
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
        layout: of the row.
        s_aux: (H,) attention sinks: a score beside those of the keys, which takes its share and gives nothing.

    Returns:
        (1, T, H, D), and no attention weights.
    """
    if softcap is not None:
        raise InvalidInputError("this model caps its attention scores, which packed attention does not do")
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return packed_causal_attention(query, key, value, layout, scaling, sliding_window, s_aux)[None], None
