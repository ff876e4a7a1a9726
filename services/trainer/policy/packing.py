"""Packing: the sequences of a microbatch lie one after the other in a single row, with no padding between them.

Every layer but attention treats tokens one by one and runs on the row as it is. Attention must not reach from one
sequence into another; `attention.py` sees to it with the layout made here. Position ids alone would not do: several
model implementations take them for a hint, and leak.

Shapes: N sequences, T tokens of the row, S scored tokens (those whose log-probability is wanted).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_PADDING = 1.5  # of a block: its longest sequence over its shortest


@dataclass(frozen=True)
class Block:
    """Consecutive sequences of similar length, which attention sees as a padded (num_sequences, length) batch."""

    num_sequences: int
    length: int  # of the longest one
    begin: int  # tokens [begin, end) of the row belong to it
    end: int
    slots: Tensor | None  # (end - begin,) where each token lies in the padded batch; None: there is no padding

    def to(self, device: torch.device) -> Block:
        """The block with its tensors on a device."""
        return self if self.slots is None else replace(self, slots=self.slots.to(device))


@dataclass(frozen=True)
class PackedRow:
    """One forward and backward pass. The last token of a sequence is no input: nothing is predicted from it."""

    indices: list[int]  # (N,) which of the caller's sequences lie here, in order
    tokens_T: Tensor
    positions_T: Tensor
    blocks: list[Block]
    scored_S: Tensor  # positions in the row whose next token is scored
    targets_S: Tensor  # those next tokens
    sequence_S: Tensor  # which of the N sequences each belongs to

    def to(self, device: torch.device) -> PackedRow:
        """The row where the model computes."""
        if self.tokens_T.device == device:
            return self
        return PackedRow(
            self.indices,
            self.tokens_T.to(device),
            self.positions_T.to(device),
            [block.to(device) for block in self.blocks],
            self.scored_S.to(device),
            self.targets_S.to(device),
            self.sequence_S.to(device),
        )


def plan_rows(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Which sequences share a row: by falling length, at most `max_tokens` tokens a row; a longer one gets its own.

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
    indices: Sequence[int], tokens: Sequence[NDArray[np.int64]], scored: Sequence[NDArray[np.bool_]]
) -> PackedRow:
    """Lays sequences into a row.

    Args:
        indices: which sequences, in the row's order.
        tokens: all sequences, each of at least two tokens.
        scored: for each token of each sequence whether its log-probability is wanted; never the first one's.
    """
    inputs = [tokens[index][:-1] for index in indices]
    wanted = np.concatenate([scored[index][1:] for index in indices])
    lengths = np.array([len(part) for part in inputs])
    return PackedRow(
        indices=list(indices),
        tokens_T=torch.from_numpy(np.concatenate(inputs)),
        positions_T=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
        blocks=_blocks(lengths.tolist()),
        scored_S=torch.from_numpy(np.flatnonzero(wanted)),
        targets_S=torch.from_numpy(np.concatenate([tokens[index][1:] for index in indices])[wanted]),
        sequence_S=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)[wanted]),
    )


def pack_rows(
    tokens: Sequence[NDArray[np.int64]], scored: Sequence[NDArray[np.bool_]], max_tokens: int
) -> list[PackedRow]:
    """All sequences in rows of at most `max_tokens` tokens."""
    plan = plan_rows([len(sequence) - 1 for sequence in tokens], max_tokens)
    return [pack_row(indices, tokens, scored) for indices in plan]


def _blocks(lengths: Sequence[int]) -> list[Block]:
    """Cuts the row, which falls in length, where a sequence is too short to be padded to the longest before it."""
    blocks: list[Block] = []
    first = 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or lengths[first] > MAX_PADDING * lengths[end]:
            blocks.append(_block(lengths[first:end], begin=blocks[-1].end if blocks else 0))
            first = end
    return blocks


def _block(lengths: Sequence[int], begin: int) -> Block:
    longest, num_tokens = max(lengths), sum(lengths)
    padded = len(lengths) * longest != num_tokens
    slots = np.concatenate([row * longest + np.arange(length) for row, length in enumerate(lengths)])
    return Block(len(lengths), longest, begin, begin + num_tokens, torch.from_numpy(slots) if padded else None)
