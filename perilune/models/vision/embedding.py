"""Images in a forward pass: what the encoder makes of each takes the place of its slots' embeddings.

Which slots these are is known by position, not by token id: a model may write the slot's token itself, and then it is
a token like any other.

Shapes: T tokens of a packed row, D hidden size, L slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perilune.errors import InvalidInputError
from perilune.models.vision.reader import PlacedImage, SeenImage

Pixels = Mapping[str, Tensor]


class RowImage(NamedTuple):
    """An image of a sequence that lies in a packed row."""

    placed: PlacedImage  # in its sequence
    offset: int  # of that sequence's first token in the row


def image_features(model: Any, images: Sequence[SeenImage]) -> list[Tensor]:
    """The vectors that take the place of each image's slots, (L, D) each; images of one shape are encoded together.

    InvalidInputError if the encoder makes more or fewer vectors of an image than it has slots.
    """
    found: dict[int, Tensor] = {}
    for numbers in _alike([image.pixels for image in images]):
        batch = [images[number] for number in numbers]
        vectors = _encoded(model, [image.pixels for image in batch])
        counts = [len(image.slots) for image in batch]
        if sum(counts) != len(vectors):
            raise InvalidInputError(
                f"{type(model).__name__} makes {len(vectors)} vectors of images with {sum(counts)} slots (the first is "
                f"{batch[0].digest[:16]}): its processor is another model's"
            )
        found |= zip(numbers, vectors.split(counts), strict=True)
    return [found[number] for number in range(len(images))]


def _alike(pixels: Sequence[Pixels]) -> list[list[int]]:
    """Returns which images have arguments of the same shapes."""
    groups: dict[tuple[tuple[str, torch.Size], ...], list[int]] = {}
    for number, each in enumerate(pixels):
        groups.setdefault(tuple((name, tensor.shape) for name, tensor in each.items()), []).append(number)
    return list(groups.values())


def _encoded(model: Any, pixels: Sequence[Pixels]) -> Tensor:
    """The vectors of images of one shape, one image after the other."""
    device, dtype = model.device, model.get_input_embeddings().weight.dtype
    joined = {name: torch.cat([each[name] for each in pixels]).to(device) for name in pixels[0]}
    inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in joined.items()}
    made = model.get_image_features(**inputs).pooler_output
    parts = [made] if isinstance(made, Tensor) else made
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def embedded_row(model: Any, tokens_T: Tensor, images: Sequence[RowImage]) -> Tensor:
    """The embeddings of a packed row with its images in place, (1, T, D). An image that occurs twice is encoded once.

    Errors as of `image_features`.
    """
    different = {each.placed.digest: each.placed.image for each in images}
    vectors = dict(zip(different, image_features(model, list(different.values())), strict=True))
    slots = np.concatenate([each.placed.slots + each.offset for each in images])
    return put(model, tokens_T, slots, torch.cat([vectors[each.placed.digest] for each in images]))


def put(model: Any, tokens_T: Tensor, slots_L: NDArray[np.int64], vectors_LD: Tensor) -> Tensor:
    """The embeddings of tokens with vectors in place of those at slots, (1, T, D)."""
    embeddings = model.get_input_embeddings()(tokens_T)
    places = torch.from_numpy(slots_L).to(embeddings.device)
    merged: Tensor = embeddings.index_copy(0, places, vectors_LD.to(embeddings.dtype))
    return merged[None]


# --- Positions in an image, where a model has them -----------------------------------------------------------------


def has_image_positions(model: Any) -> bool:
    """Tests whether a model tells tokens of an image apart by row and column (M-RoPE), and not by their order alone."""
    return hasattr(model.base_model, "get_rope_index")


def image_positions(
    model: Any, tokens: Sequence[int] | NDArray[Any], images: Sequence[PlacedImage]
) -> NDArray[np.int64]:
    """The positions of a sequence with images in time, height and width, (3, T)."""
    kinds = np.zeros(len(tokens), np.int64)
    kinds[np.concatenate([each.slots for each in images])] = 1
    grids = torch.cat([each.image.pixels["image_grid_thw"] for each in images])
    ids = torch.tensor(np.asarray(tokens, np.int64)[None], device="cpu")
    found, _ = model.base_model.get_rope_index(ids, torch.from_numpy(kinds)[None], grids.cpu())
    positions: NDArray[np.int64] = found[:, 0].numpy()
    return positions
