"""Pictures for a probe of a model that sees: what the trainer and the engine compute is compared with its own pass."""

from __future__ import annotations

import inspect
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perilune.models.probe import sequences
from perilune.models.vision.reader import PlacedImage, VisionReader

SIZES = ((48, 32), (40, 56))  # of the pictures, in pixels: wide, and high
NUM_BEFORE = 2  # tokens of each sequence before its picture

Shown = tuple[NDArray[np.int64], tuple[PlacedImage, ...]]


def shown_sequences(config: Any, vision: VisionReader) -> list[Shown]:
    """Sequences for the probe: two with a picture each, between them one without."""
    plain = [[token for token in ids if token != vision.slot_id] for ids in sequences(config)]
    found: list[Shown] = []
    for text, picture in ((plain[0], noise(*SIZES[0])), (plain[2], None), (plain[1], noise(*SIZES[1]))):
        seen = [] if picture is None else [vision.see(picture)]
        ids = [*text[:NUM_BEFORE], *(token for each in seen for token in each.ids), *text[NUM_BEFORE:]]
        found.append((np.array(ids, np.int64), vision.place(ids, seen)))
    return found


def noise(width: int, height: int) -> bytes:
    """A picture of random pixels as PNG; the same for the same size."""
    from PIL import Image

    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def own_arguments(model: Any, ids: NDArray[np.int64], placed: Sequence[PlacedImage]) -> dict[str, Any]:
    """The arguments with which a model's own pass reads a sequence's images, beside the token ids."""
    if not placed:
        return {}
    (one,) = placed
    kinds = np.zeros((1, len(ids)), np.int64)
    kinds[0, one.slots] = 1
    marks = torch.from_numpy(kinds).to(model.device)
    known = inspect.signature(model.forward).parameters
    named = {name: marks for name in ("mm_token_type_ids", "token_type_ids") if name in known}
    return {name: value.to(model.device) for name, value in one.image.pixels.items()} | named
