"""From a prompt's messages to the token ids that the policy reads, by the tokenizer that came with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perilune.api.trajectory.v1.trajectory_pb2 import ContentPart, Prompt
from perilune.errors import InvalidInputError
from perilune.models.chat import prompt_ids
from perilune.models.vision import PlacedImage, SeenImage, VisionReader


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used once a prompt is read."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, list[int]]:
        """Gives a text's token ids, as `input_ids`."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Gives the text of token ids."""


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt as the policy reads it."""

    tokens: NDArray[np.int32]
    images: tuple[PlacedImage, ...] = ()  # where they lie in the tokens
    processor: str = ""  # that made their ids, with its version


def read_prompt(
    prompt: Prompt, tokenizer: Any, max_context: int, vision: VisionReader | None = None, data: Sequence[bytes] = ()
) -> ReadPrompt:
    """The prompt in the tokenizer's chat template, up to where the response begins; plain text if it has none.

    Args:
        vision: reads its images; None for a model that reads text alone.
        data: the images' encoded bytes, in order.

    Raises:
        InvalidInputError: nothing could be answered: an empty prompt, one that fills the context, one with images for a
            model that reads text alone, or with an image that cannot be read.
    """
    seen = _seen(prompt, vision, data)
    messages = messages_of(prompt)
    try:
        ids = vision.prompt(messages, seen) if vision else prompt_ids(tokenizer, messages)
        read = ReadPrompt(np.array(ids, dtype=np.int32), vision.place(ids, seen) if vision else ())
    except InvalidInputError as error:
        raise InvalidInputError(f"prompt {prompt.id}: {error}") from error
    if not ids:
        raise InvalidInputError(f"prompt {prompt.id} is empty")
    if len(ids) >= max_context:
        shown = f", {sum(len(image.ids) for image in seen)} of them of {len(seen)} images," if seen else ""
        raise InvalidInputError(
            f"prompt {prompt.id} has {len(ids)} tokens{shown} and leaves no room for a response: the model's context "
            f"is {max_context}; shorten the prompt or choose a model with a longer context"
        )
    return _named(read, vision)


def reread_prompt(
    prompt: Prompt, tokens: NDArray[np.int32], vision: VisionReader | None = None, data: Sequence[bytes] = ()
) -> ReadPrompt:
    """The prompt of an unfinished sample, whose ids another worker made; arguments and errors as of `read_prompt`."""
    seen = _seen(prompt, vision, data)
    return _named(ReadPrompt(tokens, vision.place(tokens.tolist(), seen) if vision else ()), vision)


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt's messages as chat templates take them: a content is text, or a list of parts."""
    return [
        {"role": message.role, "content": [*map(_part, message.parts)] if message.parts else message.content}
        for message in prompt.messages
    ]


def _part(part: ContentPart) -> dict[str, str]:
    return {"type": "text", "text": part.text} if part.HasField("text") else {"type": "image"}


def _seen(prompt: Prompt, vision: VisionReader | None, data: Sequence[bytes]) -> list[SeenImage]:
    if not prompt.images:
        return []
    if vision is None:
        raise InvalidInputError(f"prompt {prompt.id} has images, and this model reads text only")
    try:
        return [vision.see(each, image.digest) for each, image in zip(data, prompt.images, strict=True)]
    except InvalidInputError as error:
        raise InvalidInputError(f"prompt {prompt.id}: {error}") from error


def _named(read: ReadPrompt, vision: VisionReader | None) -> ReadPrompt:
    """The prompt, with the processor of its images where it has any."""
    return replace(read, processor=vision.version) if vision and read.images else read
