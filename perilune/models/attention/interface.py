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
    set_attention(model, name)


def text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a model that reads and writes text: of one that sees, its decoder; else all of it."""
    is_part = model.config.get_text_config() is not model.config
    part: PreTrainedModel = model.get_decoder() if is_part else model
    return part


def attention_of(model: PreTrainedModel) -> str:
    """The name of the attention function of a model's text part."""
    name: str = text_part(model).config._attn_implementation
    return name


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Has a model's text part attend by a function of this name; an image encoder keeps its own."""
    text_part(model).set_attn_implementation(name)
