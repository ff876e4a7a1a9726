"""Says how an attention function of ours is put into a model of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
