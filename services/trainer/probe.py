"""Decides whether a model computes in a packed row what it computes alone; see `perilune.models.probe`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from perilune.errors import InvalidInputError
from perilune.models.attention import Layout
from perilune.models.probe import check_gap, own_logprobs, refuse_moving_positions, sequences, short_windows
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.packing import pack_row

INSTEAD = "choose a model with plain attention layers (Llama, Qwen, Mistral, Gemma 3, ...)"


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
