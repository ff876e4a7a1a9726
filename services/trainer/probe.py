"""Decides whether a model computes in a packed row what it computes alone; see `perilune.models.probe`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from perilune.errors import InvalidInputError
from perilune.models.attention import Layout
from perilune.models.probe import (
    check_gap,
    logprobs,
    own_logprobs,
    plain_attention,
    refuse_moving_positions,
    sequences,
    short_windows,
)
from perilune.models.vision import PlacedImage, VisionReader
from perilune.models.vision.probe import own_arguments, shown_sequences
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.packing import pack_row

INSTEAD = "choose a model with plain attention layers (Llama, Qwen, Mistral, Gemma 3, ...)"
INSTEAD_SEEING = "choose one that puts images in the place of tokens (LLaVA, Idefics3, SmolVLM, Qwen2.5-VL, ...)"


@torch.no_grad()
def check_packing(model: PreTrainedModel) -> None:
    """InvalidInputError, by the model's name, where packed log-probabilities are not those of each sequence alone.

    It takes six forward passes of a few tokens.
    """
    refuse_moving_positions(model.config)
    try:
        heads_differ = _heads_differ(model)
        alone, packed = _alone_and_packed(model)
    except Exception as error:  # a model's own code decides what comes: with another attention, anything
        raise InvalidInputError(
            f"{type(model).__name__} cannot be trained: it fails in a row of several sequences "
            f"({type(error).__name__}: {error}); {INSTEAD}"
        ) from error
    if heads_differ:
        raise InvalidInputError(
            f"{type(model).__name__} cannot be trained: it scales or caps its logits after the output embedding, which "
            f"the trainer does not do; {INSTEAD}"
        )
    gap = (packed - alone).abs().max().item()
    check_gap(model, gap, alone.std().item(), "in a row packed with other sequences", INSTEAD)


@torch.no_grad()
def check_images(model: PreTrainedModel, vision: VisionReader) -> None:
    """InvalidInputError, by the model's name, where a packed row with images is not what the model's own pass makes.

    So are refused models whose language part reads an image otherwise than as vectors in the place of tokens: by
    attention of its own, in both directions, or in several layers.
    """
    try:
        shown = shown_sequences(model.config, vision)
        with plain_attention(model):
            alone = torch.cat([_own(model, *each) for each in shown])
        tokens = [ids for ids, _ in shown]
        row = pack_row(
            range(len(shown)), tokens, [np.arange(len(ids)) > 0 for ids in tokens], [placed for _, placed in shown]
        )
        packed = token_logprobs(model, row).cpu()
    except Exception as error:  # a model's own code decides what comes, and that of its processor
        raise InvalidInputError(
            f"{type(model).__name__} cannot be trained on images: it fails at a picture "
            f"({type(error).__name__}: {error}); {INSTEAD_SEEING}"
        ) from error
    gap = (packed - alone).abs().max().item()
    check_gap(model, gap, alone.std().item(), "with an image's vectors in the place of tokens", INSTEAD_SEEING)


def _own(model: PreTrainedModel, ids: NDArray[np.int64], placed: Sequence[PlacedImage]) -> Tensor:
    """The log-probabilities of a sequence with images, by the model's own pass."""
    tokens = torch.from_numpy(ids).to(model.device)
    return logprobs(model, tokens, **own_arguments(model, ids[:-1], placed)).cpu()


def _alone_and_packed(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """The log-probabilities of a few sequences, both ways."""
    tokens = [np.array(ids) for ids in sequences(model.config)]
    row = pack_row(range(len(tokens)), tokens, [np.arange(len(ids)) > 0 for ids in tokens])
    with short_windows(model):
        alone = own_logprobs(model, [torch.from_numpy(ids).to(model.device) for ids in tokens])
        return torch.cat(alone).cpu(), token_logprobs(model, row).cpu()


def _heads_differ(model: PreTrainedModel) -> bool:
    """Tests whether the model does more for its logits than to multiply the last hidden state with the output
    embedding."""
    tokens = torch.full((1, 1), model.config.get_text_config().vocab_size - 1, device=model.device)
    options = {"use_cache": False, "layout": Layout((1,), model.device)}
    hidden = model.base_model(tokens, **options).last_hidden_state
    made = model.get_output_embeddings()(hidden)
    return not torch.allclose(made, model(tokens, **options).logits, equal_nan=True)
