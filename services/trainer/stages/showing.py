"""Examples with images: a part {"type": "image", "bytes": …} of a message becomes the ids of that encoded image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from perilune.data.examples import Example
from perilune.errors import InvalidInputError
from perilune.models.masking import Tokens
from perilune.models.vision import VisionReader


def images_of(example: Example) -> list[bytes]:
    """The encoded images of an example's conversation, in order. InvalidInputError: a part has none."""
    last = example[-1].prompt
    contents = [message["content"] for message in last] if not isinstance(last, str) else []
    parts = [part for content in contents if not isinstance(content, str) for part in content or ()]
    shown = [part for part in parts if part.get("type") == "image"]
    if any(not isinstance(part.get("bytes"), bytes) for part in shown):
        raise InvalidInputError("an image of an example comes without its bytes")
    return [part["bytes"] for part in shown]


def with_images(
    sequence: Tokens, images: Sequence[bytes], vision: VisionReader | None, *, is_whole: bool = True
) -> Tokens:
    """A sequence with the ids of its images in the place of their placeholders.

    Args:
        images: of the whole conversation; none, where the model reads text alone.
        is_whole: the sequence is all of it; else it is its beginning, and may have fewer of the images.

    Raises:
        InvalidInputError: there is not one placeholder for each image.
    """
    if vision is None:
        return sequence
    places = np.flatnonzero(sequence.tokens == vision.slot_id)
    if len(places) > len(images) or (is_whole and len(places) < len(images)):
        raise InvalidInputError(
            f"an example has {len(images)} images, and as text {len(places)} placeholders {vision.placeholder}"
        )
    seen = [vision.see(data) for data in images[: len(places)]]
    tokens, learnt = list[int](), list[bool]()
    between = itertools.pairwise([-1, *places.tolist(), len(sequence.tokens)])
    for (begin, end), image in zip(between, [*seen, None], strict=True):
        tokens += sequence.tokens[begin + 1 : end].tolist()
        learnt += sequence.learnt[begin + 1 : end].tolist()
        if image is not None:
            tokens += image.ids
            learnt += [False] * len(image.ids)
    return Tokens(np.array(tokens, np.int64), np.array(learnt, np.bool_), vision.place(tokens, seen))
