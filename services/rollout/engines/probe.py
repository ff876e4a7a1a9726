"""Decides whether a model writes, token by token, what it computes in one pass; see `perilune.models.probe`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perilune.errors import InvalidInputError
from perilune.models.probe import (
    check_gap,
    logprobs,
    plain_attention,
    refuse_moving_positions,
    sequences,
    short_windows,
)
from perilune.models.vision import PlacedImage, VisionReader
from perilune.models.vision.probe import own_arguments, shown_sequences
from services.rollout.engines.embedded.sight import Sight, joined_positions
from services.rollout.engines.embedded.slots import Prompt, SeenRows, Slots

INSTEAD = 'choose rollout.engine = "vllm", or a model with plain attention layers (Llama, Qwen, Mistral, Gemma 3, ...)'
NUM_WRITTEN = 3  # tokens of each sequence that are decoded one by one, where it has so many; the rest is its prompt
LATE = 1  # the pass at which every other sequence joins


class Cache(Protocol):
    """Keys and values of a few rows."""

    @property
    def elements_per_token(self) -> int:
        """Numbers that a token's keys and values have in all layers that wrote so far."""

    def forward(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        newest: Sequence[int],
        positions: NDArray[np.int64],
        sight: Sight | None = None,
        seen: SeenRows | None = None,
    ) -> Tensor:
        """See `slots.Slots.forward`."""


C = TypeVar("C", bound=Cache)


def slot_cache(num_rows: int, num_positions: int, device: torch.device) -> Slots:
    """Slots for so many rows."""
    slots = Slots(num_rows, num_rows * num_positions, device)
    slots.reserve(num_rows, num_positions)
    return slots


@torch.inference_mode()
def check_decoding(
    model: Any,
    make_cache: Callable[[int, int, torch.device], C] = slot_cache,  # type: ignore[assignment]  # one such
    vision: VisionReader | None = None,
) -> C:
    """Decodes in such a cache, which is returned as the model has filled it.

    InvalidInputError, by the model's name, where decoding gives other log-probabilities than one pass over it all.
    Half the samples join while others run, and some have pictures if there is a reader of them. Weights of half
    precision are widened for it: rounding shall hide nothing.
    """
    refuse_moving_positions(model.config)
    try:
        shown = [*((ids, ()) for ids in sequences(model.config)), *_pictures(model, vision)]
        tokens = [ids for ids, _ in shown]
        cache = make_cache(len(tokens), max(map(len, tokens)), model.device)
        with _in_float32(model), short_windows(model):
            with plain_attention(model):
                alone = [_own(model, *each) for each in shown]
            decoded = _decoded(model, shown, cache)
    except Exception as error:  # a model's own code decides what comes: with another attention, anything
        raise InvalidInputError(
            f"{type(model).__name__} cannot be sampled by the torch engine: it fails there "
            f"({type(error).__name__}: {error}); {INSTEAD}"
        ) from error
    whole = torch.cat([own[-len(written) :] for own, written in zip(alone, decoded, strict=True)])
    gap = (torch.cat(decoded) - whole).abs().max().item()
    check_gap(model, gap, torch.cat(alone).std().item(), "decoded token by token", INSTEAD)
    return cache


Shown = tuple[Sequence[int], Sequence[PlacedImage]]


def _pictures(model: Any, vision: VisionReader | None) -> list[Shown]:
    """Sequences with pictures, of a model that sees."""
    return [(ids.tolist(), placed) for ids, placed in shown_sequences(model.config, vision)] if vision else []


def _own(model: Any, ids: Sequence[int], placed: Sequence[PlacedImage]) -> Tensor:
    """The log-probabilities of a sequence by the model's own pass."""
    given = own_arguments(model, np.array(ids[:-1]), placed)
    found: Tensor = logprobs(model, torch.tensor(ids, device=model.device), **given)
    return found


def _decoded(model: Any, shown: Sequence[Shown], cache: Cache) -> list[Tensor]:
    """Each sequence's last log-probabilities, of tokens that are given and not drawn."""
    sight, tokens = Sight(model), [ids for ids, _ in shown]
    own = [sight.positions(ids, placed) for ids, placed in shown]
    starts = [max(1, len(ids) - NUM_WRITTEN) for ids in tokens]  # how much is the prompt
    joins = [LATE * (number % 2) for number in range(len(tokens))]
    order = sorted(range(len(tokens)), key=lambda number: joins[number])  # rows in use lie before free ones
    logprobs: list[list[Tensor]] = [[] for _ in tokens]
    for time in range(LATE + NUM_WRITTEN):
        here = [number for number in order if joins[number] <= time]
        # One that is read to its end is read there again: its row stays, and what comes of it is left out.
        places = {number: min(starts[number] + time - joins[number], len(tokens[number]) - 1) for number in here}
        prompts = [
            Prompt(
                tokens[number][: starts[number] - 1],
                [order.index(number)],
                shown[number][1],
                None if (moved := own[number]) is None else moved[:, : starts[number] - 1],
            )
            for number in here
            if joins[number] == time and starts[number] > 1
        ]
        newest = [tokens[number][places[number] - 1] for number in here]
        positions = np.array([places[number] - 1 for number in here], dtype=np.int64)
        seen = SeenRows(joined_positions([_position(own[number], places[number] - 1) for number in here]))
        logits = cache.forward(model, prompts, newest, positions, sight, seen).log_softmax(-1)
        for row, number in enumerate(here):
            if starts[number] + len(logprobs[number]) == places[number]:
                logprobs[number].append(logits[row, tokens[number][places[number]]])
    return [torch.stack(each) for each in logprobs]


def _position(own: NDArray[np.int64] | None, place: int) -> NDArray[np.int64]:
    """The position of a token, as the model has it."""
    return np.array([place]) if own is None else own[:, place : place + 1]


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
