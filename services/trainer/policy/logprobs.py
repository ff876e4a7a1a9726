"""Log-probabilities of response tokens under the policy.

The vocabulary's projection is most of a small model's memory and much of its work, so it runs on scored positions
only, in chunks; where there is more than one chunk, its logits are made again in the backward pass, not kept.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from perilune.models.memory import logits_at_once
from perilune.models.vision import SeenImage
from perilune.models.vision.embedding import embedded_row, has_image_positions, image_features, image_positions
from services.trainer.policy.packing import PackedRow

OnGradient = Callable[[Tensor], None]


def token_logprobs(
    model: PreTrainedModel, row: PackedRow, temperature: float = 1.0, on_gradient: OnGradient | None = None
) -> Tensor:
    """log π(token | what comes before it in its sequence) of each scored token, float32 nats, shape (S,).

    π is softmax(logits / temperature): the distribution that the tokens were drawn from.

    Args:
        on_gradient: called in the backward pass with the gradient by the last hidden state of each scored token, shape
            (S, D).
    """
    row = row.to(model.device)
    hidden = model.base_model(**row_inputs(model, row), use_cache=False, layout=row.layout).last_hidden_state[0]
    scored_SD = hidden.index_select(0, row.scored_S)
    if on_gradient is not None and scored_SD.requires_grad:
        scored_SD.register_hook(on_gradient)
    return _chunked_logprobs(model.get_output_embeddings(), scored_SD, row.targets_S, temperature)


def row_inputs(model: PreTrainedModel, row: PackedRow) -> dict[str, Tensor]:
    """A model's arguments for a row: token ids and positions, or embeddings where the row has images."""
    if not row.images:
        given = (
            {"input_ids": row.tokens_T[None]} if row.unused is None else _with_unused(model, row.tokens_T, row.unused)
        )
        return given | {"position_ids": row.positions_T[None]}
    positions = row.positions_T[None]
    if has_image_positions(model):
        positions = _image_positions(model, row)[:, None]
    return {"inputs_embeds": embedded_row(model, row.tokens_T, row.images), "position_ids": positions}


def _with_unused(model: PreTrainedModel, tokens_T: Tensor, unused: SeenImage) -> dict[str, Tensor]:
    """The embeddings of tokens, on which an image has no influence, and gets a gradient of 0."""
    (vectors,) = image_features(model, [unused])
    embeddings: Any = model.get_input_embeddings()
    return {"inputs_embeds": embeddings(tokens_T)[None] + 0.0 * vectors.sum()}


def _image_positions(model: PreTrainedModel, row: PackedRow) -> Tensor:
    """The positions of a row's tokens in time, height and width, (3, T)."""
    found = row.positions_T.expand(3, -1).clone()
    for offset, group in itertools.groupby(row.images, key=lambda each: each.offset):
        end = int(row.layout.offsets[row.layout.offsets > offset][0])
        placed = [each.placed for each in group]
        tokens = row.tokens_T[offset:end].cpu().numpy()
        found[:, offset:end] = torch.from_numpy(image_positions(model, tokens, placed))
    return found


class TokenLogprobs(nn.Module):
    """`token_logprobs` as a module: FSDP puts parameters together for the call of a module."""

    def __init__(self, model: PreTrainedModel, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self._temperature = temperature

    def forward(self, row: PackedRow, on_gradient: OnGradient | None = None) -> Tensor:
        """The log-probabilities of a row's scored tokens, shape (S,), in nats; see `token_logprobs`."""
        return token_logprobs(self.model, row, self._temperature, on_gradient)


def sequence_logprobs(logprobs_S: Tensor, row: PackedRow) -> Tensor:
    """log π(response | prompt): the sum over each sequence's scored tokens, shape (N,)."""
    return logprobs_S.new_zeros(len(row.indices)).index_add(0, row.sequence_S, logprobs_S)


def _chunked_logprobs(head: nn.Module, hidden_SD: Tensor, targets_S: Tensor, temperature: float) -> Tensor:
    assert isinstance(head.weight, Tensor)
    chunk = max(1, chunk_logits(hidden_SD.device) // head.weight.shape[0])
    if len(targets_S) <= chunk:
        return _logprobs(head, hidden_SD, targets_S, temperature)
    parts = zip(hidden_SD.split(chunk), targets_S.split(chunk), strict=True)
    return torch.cat(
        [checkpoint(_logprobs, head, hidden, targets, temperature, use_reentrant=False) for hidden, targets in parts]
    )


@functools.cache
def chunk_logits(device: torch.device) -> int:
    """Logits that are held at a time on a device."""
    is_card = device.type == "cuda"
    return logits_at_once(torch.cuda.get_device_properties(device).total_memory if is_card else None)


def _logprobs(head: nn.Module, hidden_SD: Tensor, targets_S: Tensor, temperature: float) -> Tensor:
    logits_SV = head(hidden_SD).float()
    return -F.cross_entropy(logits_SV if temperature == 1 else logits_SV / temperature, targets_S, reduction="none")
