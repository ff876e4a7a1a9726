"""A model from its small files, which travel beside its weights: configuration, tokenizer, generation settings."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)

from perilune.errors import InvalidInputError
from perilune.models.chat import check_tokenizer
from perilune.models.vision.reader import is_image_text, settings_of


@contextlib.contextmanager
def model_folder(model_files: Mapping[str, bytes]) -> Iterator[Path]:
    """Writes the files to a temporary folder, where transformers can read them.

    InvalidInputError for a name that is not a plain one: they come from outside.
    """
    with tempfile.TemporaryDirectory(prefix="perilune-model-") as folder:
        for name, content in model_files.items():
            if not name or Path(name).name != name:
                raise InvalidInputError(f"a model file may not be called {name!r}")
            (Path(folder) / name).write_bytes(content)
        yield Path(folder)


def read_config(model_files: Mapping[str, bytes]) -> Any:
    """The model's configuration. InvalidInputError if the files hold none that transformers knows."""
    with model_folder(model_files) as folder:
        try:
            return AutoConfig.from_pretrained(folder)
        # What transformers raises for a config.json that is missing, or of a model that it does not know.
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInputError(f"the model's config.json cannot be used: {error}") from error


def blank_model(model_files: Mapping[str, bytes], dtype: torch.dtype, device: str = "cpu") -> PreTrainedModel:
    """The model that config.json describes, in evaluation mode, before it is given its weights.

    On the device "meta" it takes no memory. InvalidInputError if it is no causal language model.
    """
    config = read_config(model_files)
    try:
        with torch.device(device):
            model = model_class(config, bool(settings_of(model_files))).from_config(config, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:  # as in `read_config`
        raise InvalidInputError(f"the model's config.json makes no causal language model: {error}") from error
    assert isinstance(model, PreTrainedModel)
    return model.eval()


def model_class(config: Any, has_processor: bool) -> Any:
    """The class of transformers that makes a model of such a configuration: one that sees has an image processor."""
    return AutoModelForImageTextToText if has_processor and is_image_text(config) else AutoModelForCausalLM


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


def end_tokens(model_files: Mapping[str, bytes], tokenizer: Any) -> set[int]:
    """The ids that end a response: those of generation_config.json, and the tokenizer's own end of sequence."""
    ids = {tokenizer.eos_token_id}
    if "generation_config.json" in model_files:
        with model_folder(model_files) as folder:
            configured = GenerationConfig.from_pretrained(folder).eos_token_id
        ids |= set(configured) if isinstance(configured, list) else {configured}
    return ids - {None}
