"""Images of samples in an engine: what the version that serves sees in them, and where in a packed row that goes.

An image is encoded once by each version, however many samples show it. What is made of it is kept while there is room;
made again it is the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perilune.errors import InvalidInputError
from perilune.models.vision import PlacedImage, SeenImage
from perilune.models.vision.embedding import has_image_positions, image_features, image_positions

CACHE_BYTES = 512 << 20


class Piece(NamedTuple):
    """Neighbouring tokens of a sample in a packed row."""

    images: Sequence[PlacedImage]  # of the sample
    start: int  # in the sample
    end: int
    offset: int  # of the first one in the row


class Vectors(NamedTuple):
    """Rows of a pass whose embeddings are not those of their tokens."""

    slots: NDArray[np.int64]
    vectors: Tensor


class Sight:
    """The images that a model has encoded, by their digests. For the engine's own thread."""

    def __init__(self, model: Any, cache_bytes: int = CACHE_BYTES) -> None:
        self._model, self._cache_bytes = model, cache_bytes
        self._found: OrderedDict[str, Tensor] = OrderedDict()
        self.num_encoded = 0

    def look(self, images: Iterable[SeenImage]) -> None:
        """Encodes the images that are not known yet, together.

        InvalidInputError: the model reads text alone, or an image does not fit its slots.
        """
        unknown = {image.digest: image for image in images if image.digest not in self._found}
        if not unknown:
            return
        if not hasattr(self._model, "get_image_features"):
            raise InvalidInputError(f"{type(self._model).__name__} reads text only, and the prompt has images")
        self._found |= zip(unknown, image_features(self._model, list(unknown.values())), strict=True)
        self.num_encoded += len(unknown)

    def forget(self) -> None:
        """Drops all that was made of images: weights changed."""
        self._found.clear()

    def vectors(self, pieces: Sequence[Piece]) -> Vectors | None:
        """The vectors that go into a packed row; None if no image lies in it."""
        inside = [each for piece in pieces for each in _inside(piece)]
        if not inside:
            return None
        self.look(image for image, _, _ in inside)
        parts = []
        for image, which, _ in inside:
            self._found.move_to_end(image.digest)
            parts.append(self._found[image.digest][which])
        self._shrink()
        return Vectors(np.concatenate([slots for _, _, slots in inside]), torch.cat(parts))

    def _shrink(self) -> None:
        """Drops the images that were used least recently, where they take too much memory."""
        while len(self._found) > 1 and sum(each.nbytes for each in self._found.values()) > self._cache_bytes:
            self._found.popitem(last=False)

    def positions(self, tokens: Sequence[int], images: Sequence[PlacedImage]) -> NDArray[np.int64] | None:
        """A sample's positions in time, height and width, (3, T); None where its tokens' order says all."""
        return image_positions(self._model, tokens, images) if images and has_image_positions(self._model) else None


def _inside(piece: Piece) -> Iterable[tuple[SeenImage, NDArray[np.int64], NDArray[np.int64]]]:
    """The images that lie in a piece: which of their slots do, and at which rows."""
    for placed in piece.images:
        if placed.start < piece.end and placed.end > piece.start:
            slots = placed.slots
            which = np.flatnonzero((slots >= piece.start) & (slots < piece.end))
            if len(which):
                yield placed.image, which, slots[which] - piece.start + piece.offset


def joined_positions(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Positions of a packed row's parts, (N,), or (3, N) where a part has them in time, height and width."""
    if any(part.ndim == 2 for part in parts):
        parts = [part if part.ndim == 2 else np.broadcast_to(part, (3, len(part))) for part in parts]
    return np.concatenate(parts, -1)
