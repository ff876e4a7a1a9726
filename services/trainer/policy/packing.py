"""Packing: the sequences of a microbatch lie one after the other in a single row, with no padding between them.

Every layer but attention treats tokens one by one and runs on the row as it is. Attention must not reach from one
sequence into another; `attention.py` sees to it with the layout made here. Position ids alone would not do: several
model implementations take them for a hint, and leak.

Shapes: N sequences, T tokens of the row, S scored tokens (those whose log-probability is wanted).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perilune.models.attention import Layout
from perilune.models.vision.embedding import RowImage
from perilune.models.vision.reader import PlacedImage, SeenImage

Images = Sequence[Sequence[PlacedImage]]  # of each sequence


@dataclass(frozen=True)
class PackedRow:
    """One forward and backward pass. The last token of a sequence is no input: nothing is predicted from it."""

    indices: list[int]  # (N,) which of the caller's sequences lie here, in order
    tokens_T: Tensor
    positions_T: Tensor
    layout: Layout  # of the N sequences
    scored_S: Tensor  # positions in the row whose next token is scored
    targets_S: Tensor  # those next tokens
    sequence_S: Tensor  # which of the N sequences each belongs to
    images: tuple[RowImage, ...] = ()  # of all sequences
    unused: SeenImage | None = None  # is encoded, and is in no sequence

    @property
    def num_tokens(self) -> int:
        """Tokens of the row."""
        return len(self.tokens_T)

    def to(self, device: torch.device) -> PackedRow:
        """The row where the model computes."""
        if self.tokens_T.device == device:
            return self
        return PackedRow(
            self.indices,
            self.tokens_T.to(device),
            self.positions_T.to(device),
            self.layout.to(device),
            self.scored_S.to(device),
            self.targets_S.to(device),
            self.sequence_S.to(device),
            self.images,
            self.unused,
        )


def all_seeing(rows: Sequence[PackedRow]) -> list[PackedRow]:
    """The rows, so that each encodes an image if one does: ranks that share an encoder must all call it."""
    first = next((image.placed.image for row in rows for image in row.images), None)
    return [row if row.images else replace(row, unused=first) for row in rows]


def plan_rows(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Returns which sequences share a row: by falling length, at most `max_tokens` tokens a row; a longer one gets
    its own.

    Similar lengths together keep attention's padding small. The same lengths give the same plan.
    """
    rows: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if lengths[index] > room or not rows:
            rows.append([])
            room = max_tokens
        rows[-1].append(index)
        room -= lengths[index]
    return rows


def pack_row(
    indices: Sequence[int],
    tokens: Sequence[NDArray[np.int64]],
    scored: Sequence[NDArray[np.bool_]],
    images: Images | None = None,
) -> PackedRow:
    """Lays sequences into a row.

    Args:
        indices: which sequences, in the row's order.
        tokens: all sequences, each of at least two tokens.
        scored: for each token of each sequence whether its log-probability is wanted; never the first one's.
        images: of each sequence; none of any, if not given.
    """
    inputs = [tokens[index][:-1] for index in indices]
    wanted = np.concatenate([scored[index][1:] for index in indices])
    lengths = np.array([len(part) for part in inputs])
    return PackedRow(
        indices=list(indices),
        tokens_T=torch.from_numpy(np.concatenate(inputs)),
        positions_T=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
        layout=Layout(tuple(lengths.tolist())),
        scored_S=torch.from_numpy(np.flatnonzero(wanted)),
        targets_S=torch.from_numpy(np.concatenate([tokens[index][1:] for index in indices])[wanted]),
        sequence_S=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)[wanted]),
        images=_row_images([images[index] for index in indices], lengths.tolist()) if images else (),
    )


def _row_images(images: Images, lengths: Sequence[int]) -> tuple[RowImage, ...]:
    """The images of a row's sequences, which have these lengths."""
    offsets = itertools.accumulate(lengths, initial=0)
    return tuple(RowImage(each, offset) for own, offset in zip(images, offsets, strict=False) for each in own)


def pack_rows(
    tokens: Sequence[NDArray[np.int64]],
    scored: Sequence[NDArray[np.bool_]],
    max_tokens: int,
    images: Images | None = None,
) -> list[PackedRow]:
    """All sequences in rows of at most `max_tokens` tokens."""
    plan = plan_rows([len(sequence) - 1 for sequence in tokens], max_tokens)
    return [pack_row(indices, tokens, scored, images) for indices in plan]
