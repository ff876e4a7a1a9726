"""Decides whether a model writes, token by token, what it computes in one pass; see `perilune.models.probe`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perilune.errors import InvalidInputError
from perilune.models.probe import check_gap, own_logprobs, refuse_moving_positions, sequences, short_windows
from services.rollout.engines.embedded.slots import Slots

INSTEAD = 'choose rollout.engine = "vllm", or a model with plain attention layers (Llama, Qwen, Mistral, Gemma 3, ...)'
NUM_WRITTEN = 3  # tokens of each sequence that are decoded one by one, where it has so many; the rest is its prompt
LATE = 1  # the pass at which every other sequence joins


class Cache(Protocol):
    """Keys and values of a few rows."""

    @property
    def elements_per_token(self) -> int:
        """Numbers that a token's keys and values have in all layers that wrote so far."""

    def forward(
        self, model: Any, prompts: Mapping[bytes, Sequence[int]], newest: Sequence[int], positions: NDArray[np.int64]
    ) -> Tensor:
        """See `slots.Slots.forward`."""


C = TypeVar("C", bound=Cache)


def slot_cache(num_rows: int, num_positions: int, device: torch.device) -> Slots:
    """Slots for so many rows."""
    slots = Slots(num_rows, num_rows * num_positions, device)
    slots.reserve(num_rows, num_positions)
    return slots


@torch.inference_mode()
def check_decoding(model: Any, make_cache: Callable[[int, int, torch.device], C] = slot_cache) -> C:  # type: ignore[assignment]  # the default is one such
    """Decodes in such a cache, which is returned as the model has filled it.

    InvalidInputError, by the model's name, where decoding gives other log-probabilities than one pass over it all.
    Half the samples join while others run. Weights of half precision are widened for it: rounding shall hide nothing.
    """
    refuse_moving_positions(model.config)
    tokens = sequences(model.config)
    cache = make_cache(len(tokens), max(map(len, tokens)), model.device)
    try:
        with _in_float32(model), short_windows(model):
            alone = own_logprobs(model, [torch.tensor(ids, device=model.device) for ids in tokens])
            decoded = _decoded(model, tokens, cache)
    except Exception as error:  # a model's own code decides what comes: with another attention, anything
        raise InvalidInputError(
            f"{type(model).__name__} cannot be sampled by the torch engine: it fails there "
            f"({type(error).__name__}: {error}); {INSTEAD}"
        ) from error
    whole = torch.cat([own[-len(written) :] for own, written in zip(alone, decoded, strict=True)])
    gap = (torch.cat(decoded) - whole).abs().max().item()
    check_gap(model, gap, torch.cat(alone).std().item(), "decoded token by token", INSTEAD)
    return cache


def _decoded(model: Any, tokens: Sequence[Sequence[int]], cache: Cache) -> list[Tensor]:
    """Each sequence's last log-probabilities, of tokens that are given and not drawn."""
    starts = [max(1, len(ids) - NUM_WRITTEN) for ids in tokens]  # how much is the prompt
    joins = [LATE * (number % 2) for number in range(len(tokens))]
    order = sorted(range(len(tokens)), key=lambda number: joins[number])  # rows in use lie before free ones
    logprobs: list[list[Tensor]] = [[] for _ in tokens]
    for time in range(LATE + NUM_WRITTEN):
        here = [number for number in order if joins[number] <= time]
        # One that is read to its end is read there again: its row stays, and what comes of it is left out.
        places = {number: min(starts[number] + time - joins[number], len(tokens[number]) - 1) for number in here}
        prompts = {
            np.array(tokens[number][: starts[number] - 1], dtype=np.int32).tobytes(): [order.index(number)]
            for number in here
            if joins[number] == time and starts[number] > 1
        }
        newest = [tokens[number][places[number] - 1] for number in here]
        positions = np.array([places[number] - 1 for number in here], dtype=np.int64)
        logits = cache.forward(model, prompts, newest, positions).log_softmax(-1)
        for row, number in enumerate(here):
            if starts[number] + len(logprobs[number]) == places[number]:
                logprobs[number].append(logits[row, tokens[number][places[number]]])
    return [torch.stack(each) for each in logprobs]


@contextmanager
def _in_float32(model: nn.Module) -> Iterator[None]:
    """The same values in float32; what they were lies beside them meanwhile, so that not a bit is lost."""
    tensors = [*model.parameters(), *model.buffers()]
    half = [(tensor, tensor.data) for tensor in tensors if tensor.is_floating_point() and tensor.itemsize < 4]
    for tensor, data in half:
        tensor.data = data.float()
    try:
        yield
    finally:
        for tensor, data in half:
            tensor.data = data
