"""From a prompt's messages to the token ids that the policy reads, by the tokenizer that came with the weights."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError
from perilune.models.chat import check_tokenizer, prompt_ids


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer once a prompt is read."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, list[int]]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...


@contextlib.contextmanager
def model_folder(model_files: Mapping[str, bytes]) -> Iterator[Path]:
    """The files on disk for a moment, where transformers can read them. Only plain names: they come from outside."""
    with tempfile.TemporaryDirectory(prefix="perilune-model-") as folder:
        for name, content in model_files.items():
            if not name or Path(name).name != name:
                raise InvalidInputError(f"a model file may not be called {name!r}")
            (Path(folder) / name).write_bytes(content)
        yield Path(folder)


def build_tokenizer(model_files: Mapping[str, bytes]) -> Any:
    """The model's own tokenizer. InvalidInputError if the files hold none, or one that does not fit the model."""
    with model_folder(model_files) as folder:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:  # the files may hold anything, and the library raises what it stumbles over
            raise InvalidInputError(f"the model's files hold no tokenizer that can be read: {error}") from error
    config = json.loads(model_files["config.json"])
    check_tokenizer(tokenizer, num_embeddings(config), config.get("model_type", "the model"))
    return tokenizer


def num_embeddings(config: Mapping[str, Any]) -> int:
    """Token ids that a model's configuration (config.json) has embeddings for."""
    return int(config.get("text_config", config)["vocab_size"])


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
