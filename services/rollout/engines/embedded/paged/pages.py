"""The key-value tensors of all layers in pages, and one forward pass over them.

Shapes: P blocks, K tokens of a block, G key-value heads, D head size, N packed tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perilune.models.vision import PlacedImage
from services.rollout.engines.embedded import passes
from services.rollout.engines.embedded.paged.blocks import BLOCK_TOKENS, num_blocks
from services.rollout.engines.embedded.paged.kernels import PLAIN, Kernels, Tiles
from services.rollout.engines.embedded.sight import Piece, Sight, joined_positions
from services.rollout.engines.embedded.slots import Prompt, SeenRows


@dataclass(frozen=True)
class Shape:
    """A layer's keys and values of one token."""

    num_heads: int
    key_size: int
    value_size: int

    @property
    def num_elements(self) -> int:
        """Numbers of one token."""
        return self.num_heads * (self.key_size + self.value_size)


class Pages:
    """Keys and values of all layers, (P, K, G, D) each; made when a layer first writes, or for known shapes."""

    def __init__(self, num_blocks: int, device: torch.device, kernels: Kernels, tile_tokens: int = 16) -> None:
        """
        Args:
            num_blocks: the spare one comes in addition.
            device: of the model.
            kernels: for it.
            tile_tokens: of a prompt that a kernel takes together.
        """
        self.device, self.kernels, self.tile_tokens = device, kernels, tile_tokens
        self._num_blocks = num_blocks
        self.shapes: dict[int, Shape] = {}
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def reserve(self, shapes: Mapping[int, Shape], dtype: torch.dtype) -> None:
        """Takes the memory of these layers at once."""
        for layer, shape in shapes.items():
            self._make(layer, shape, dtype)

    def grow(self, num_blocks: int) -> None:
        """Makes room for more blocks; what lies in those that there are stays."""
        added = num_blocks - self._num_blocks
        grown = {}
        for layer, pair in self._layers.items():
            keys, values = (torch.cat([old, old.new_zeros(added, *old.shape[1:])]) for old in pair)
            grown[layer] = keys, values
        self._layers, self._num_blocks = grown, num_blocks

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values; made for the like of these, (1, G, N, D), when it first writes."""
        if index not in self._layers:
            self._make(index, Shape(key.shape[1], key.shape[3], value.shape[3]), key.dtype)
        return self._layers[index]

    def _make(self, index: int, shape: Shape, dtype: torch.dtype) -> None:
        self.shapes[index] = shape
        keys, values = (
            torch.zeros(self._num_blocks + 1, BLOCK_TOKENS, shape.num_heads, size, dtype=dtype, device=self.device)
            for size in (shape.key_size, shape.value_size)
        )
        self._layers[index] = keys, values


class FixedRows:
    """Pages of a few rows, each with blocks of its own: see `probe.Cache`."""

    def __init__(self, num_rows: int, num_positions: int, device: torch.device) -> None:
        count = num_blocks(num_positions)
        self._blocks = [[1 + row * count + each for each in range(count)] for row in range(num_rows)]
        self._pages = Pages(num_rows * count, device, PLAIN)

    @property
    def shapes(self) -> Mapping[int, Shape]:
        """Of the layers that wrote so far."""
        return self._pages.shapes

    @property
    def elements_per_token(self) -> int:
        """See `probe.Cache`."""
        return sum(shape.num_elements for shape in self.shapes.values())

    def forward(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        newest: Sequence[int],
        positions: NDArray[np.int64],
        sight: Sight | None = None,
        seen: SeenRows | None = None,
    ) -> Tensor:
        """See `probe.Cache`."""
        chunks: list[Chunk] = []
        copies: list[Copy] = []
        for prompt in prompts:
            first, *others = prompt.rows
            offset = sum(len(chunk.tokens) for chunk in chunks)
            chunks.append(Chunk(prompt.tokens, 0, self._blocks[first], prompt.images, prompt.positions))
            copies += [Copy(offset, len(prompt.tokens), 0, self._blocks[other]) for other in others]
        own = seen.positions if seen else positions
        rows = [
            Chunk([token], int(position), self._blocks[row], positions=own[..., row : row + 1])
            for row, (token, position) in enumerate(zip(newest, positions, strict=True))
        ]
        table = torch.tensor(self._blocks, dtype=torch.int32, device=self._pages.device)
        vectors = sight.vectors(pieces_of(chunks)) if sight else None
        return passes.forward(model, *mixed_pass(self._pages, chunks, copies, rows, table), len(rows), vectors)


@dataclass(frozen=True)
class PagedPass:
    """See `passes.Pass`: where the tokens of a packed row are stored, and which attend together."""

    pages: Pages
    places: Tensor  # int64: where tokens go
    sources: Tensor | None  # int64: which tokens these are; all in order if not given
    tiles: Sequence[Tiles]  # that have all tokens of the row

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        window: int | None,
        sinks_H: Tensor | None,
    ) -> Tensor:
        """See `passes.Pass`."""
        keys, values = self.pages.layer(layer, key, value)
        self.pages.kernels.store(key[0], value[0], keys, values, self.sources, self.places)
        out = query.new_empty(query.shape[2], query.shape[1], value.shape[3])
        scaling = query.shape[3] ** -0.5 if scaling is None else scaling
        for tiles in self.tiles:
            self.pages.kernels.attend(query[0], keys, values, tiles, scaling, window, sinks_H, out)
        return out


def decode_pass(pages: Pages, table: Tensor, positions_B: Tensor, is_live_B: Tensor) -> PagedPass:
    """The pass of one token of each row; rows that are not live write to the spare block. Nothing waits for the card.

    Args:
        pages: of the rows.
        table: int32 (B, W): their blocks.
        positions_B: int64: where their tokens go.
        is_live_B: int64: 1, or 0.
    """
    block_B = table.gather(1, (positions_B // BLOCK_TOKENS)[:, None]).squeeze(1)
    places_B = (block_B * BLOCK_TOKENS + positions_B % BLOCK_TOKENS) * is_live_B
    rows_B = torch.arange(len(positions_B), device=positions_B.device)
    tiles = torch.stack([rows_B, rows_B, positions_B, torch.ones_like(rows_B)], 1).int()
    return PagedPass(pages, places_B, None, [Tiles(table, tiles, 1)])


@dataclass(frozen=True)
class Chunk:
    """Neighbouring tokens of one sample that a pass reads, and that it stores for others too."""

    tokens: Sequence[int] | NDArray[np.int32]
    start: int  # place of the first
    blocks: Sequence[int]  # of the sample
    images: Sequence[PlacedImage] = ()  # of the sample
    positions: NDArray[np.int64] | None = None  # as the model has them, (N,) or (3, N); the places, if not given

    @property
    def own_positions(self) -> NDArray[np.int64]:
        """The positions of its tokens, as the model has them."""
        return self.start + np.arange(len(self.tokens)) if self.positions is None else self.positions


def pieces_of(chunks: Sequence[Chunk]) -> list[Piece]:
    """Chunks that follow each other in a packed row, as far as their images are concerned."""
    offsets = itertools.accumulate((len(chunk.tokens) for chunk in chunks), initial=0)
    return [
        Piece(chunk.images, chunk.start, chunk.start + len(chunk.tokens), offset)
        for chunk, offset in zip(chunks, offsets, strict=False)
    ]


@dataclass(frozen=True)
class Copy:
    """Tokens of a packed row that are stored for one more sample."""

    offset: int  # of the first one in the packed row
    count: int
    start: int  # position of the first
    blocks: Sequence[int]  # of the other sample


def places_of(start: int, count: int, blocks: Sequence[int]) -> NDArray[np.int64]:
    """Returns where the tokens from a position on lie.

    >>> places_of(14, 4, [7, 9]).tolist()
    [126, 127, 144, 145]
    """
    positions = np.arange(start, start + count)
    first = start // BLOCK_TOKENS
    numbers = np.array(blocks[first : num_blocks(start + count)], dtype=np.int64)
    return numbers[positions // BLOCK_TOKENS - first] * BLOCK_TOKENS + positions % BLOCK_TOKENS


def mixed_pass(
    pages: Pages,
    chunks: Sequence[Chunk],
    copies: Sequence[Copy],
    rows: Sequence[Chunk],
    table: Tensor,
) -> tuple[PagedPass, Tensor, Tensor]:
    """The pass that reads chunks, and then one token of each row; with its tokens, (1, N), and their positions.

    Positions are (1, N), or (3, 1, N) where a piece has them in time, height and width.

    What the host knows travels to the card in one piece.

    Args:
        pages: of all of them.
        chunks: of prompts.
        copies: of chunks' tokens.
        rows: their last tokens.
        table: int32 (rows or more, W): the rows' blocks.
    """
    pieces = [*chunks, *rows]
    num_tokens = sum(len(piece.tokens) for piece in pieces)
    longest = max((num_blocks(chunk.start + len(chunk.tokens)) for chunk in chunks), default=0)
    packed = {
        "tokens": np.concatenate([np.asarray(piece.tokens, dtype=np.int64) for piece in pieces]),
        "positions": joined_positions([piece.own_positions for piece in pieces]),
        "sources": np.concatenate([np.arange(num_tokens), *(copy.offset + np.arange(copy.count) for copy in copies)]),
        "places": np.concatenate(
            [places_of(piece.start, len(piece.tokens), piece.blocks) for piece in pieces]
            + [places_of(copy.start, copy.count, copy.blocks) for copy in copies]
        ),
        "chunk_table": np.array(
            [list(chunk.blocks[:longest]) + [0] * (longest - len(chunk.blocks)) for chunk in chunks], dtype=np.int64
        ),
        "chunk_tiles": _tiles(chunks, 0, pages.tile_tokens),
        "row_tiles": _tiles(rows, num_tokens - len(rows), 1),
    }
    on_device = _upload_all(packed, pages.device)
    tiles = []
    if chunks:
        tiles.append(Tiles(on_device["chunk_table"].int(), on_device["chunk_tiles"].int(), pages.tile_tokens))
    if rows:
        tiles.append(Tiles(table, on_device["row_tiles"].int(), 1))
    plan = PagedPass(pages, on_device["places"], on_device["sources"], tiles)
    return plan, on_device["tokens"][None], on_device["positions"][..., None, :]


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array where the model is; to a card from pinned memory, without waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _tiles(pieces: Sequence[Chunk], offset: int, max_tokens: int) -> NDArray[np.int64]:
    """Tiles of pieces that follow each other in a packed row; a piece's number is its row of the table."""
    tiles = []
    for number, piece in enumerate(pieces):
        for first in range(0, len(piece.tokens), max_tokens):
            count = min(max_tokens, len(piece.tokens) - first)
            tiles.append((number, offset + first, piece.start + first, count))
        offset += len(piece.tokens)
    return np.array(tiles, dtype=np.int64).reshape(-1, 4)


def _upload_all(arrays: Mapping[str, NDArray[np.int64]], device: torch.device) -> dict[str, Tensor]:
    """Uploads int64 arrays in one piece; views of it, in their shapes."""
    whole = upload(np.concatenate([array.ravel() for array in arrays.values()]), device)
    parts = whole.split([array.size for array in arrays.values()])
    return {name: part.view(array.shape) for (name, array), part in zip(arrays.items(), parts, strict=True)}
