"""From a prompt's messages to the token ids that the policy reads, by the tokenizer that came with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError
from perilune.models.chat import prompt_ids


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used once a prompt is read."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, list[int]]:
        """Gives a text's token ids, as `input_ids`."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Gives the text of token ids."""


def prompt_tokens(prompt: Prompt, tokenizer: Any, max_context: int) -> NDArray[np.int32]:
    """The prompt in the tokenizer's chat template, up to where the response begins; plain text if it has none.

    InvalidInputError if nothing could be answered: an empty prompt, one that fills the context, or one with images.
    """
    if prompt.images:
        raise InvalidInputError(f"prompt {prompt.id} has images, and this engine reads text only")
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    try:
        ids = prompt_ids(tokenizer, messages)
    except InvalidInputError as error:
        raise InvalidInputError(f"prompt {prompt.id}: {error}") from error
    if not ids:
        raise InvalidInputError(f"prompt {prompt.id} is empty")
    if len(ids) >= max_context:
        raise InvalidInputError(
            f"prompt {prompt.id} has {len(ids)} tokens and leaves no room for a response: the model's context is "
            f"{max_context}; shorten the prompt or choose a model with a longer context"
        )
    return np.array(ids, dtype=np.int32)
