"""A model by its source: a folder, the hub, or a package's GGUF file."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from perilune.errors import InvalidInputError, NotFoundError, PeriluneError
from perilune.models.packages import PACKAGE_PREFIX, gguf_in_package
from perilune.models.tensors import raw_tensor
from perilune.models.vision.reader import is_image_text, processor_files, processor_template
from perilune.weights import RawTensor


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model that is named as for `load_policy`."""
    with _naming_model(path):
        if path.startswith(PACKAGE_PREFIX):
            gguf = gguf_in_package(path.removeprefix(PACKAGE_PREFIX))
            return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer = AutoTokenizer.from_pretrained(path)
        if tokenizer.chat_template is None:
            tokenizer.chat_template = processor_template(path)
        return tokenizer


def load_processor(path: str) -> dict[str, bytes]:
    """The settings of a model's image processor, by file; none of a text model. Errors as of `load_model`."""
    with _naming_model(path):
        if path.startswith(PACKAGE_PREFIX) or not is_image_text(AutoConfig.from_pretrained(path)):
            return {}
        return processor_files(path)


def load_model(path: str) -> PreTrainedModel:
    """The model in float32. InvalidInputError if its files lack weights: transformers would draw them at random."""
    folder: str | Path = path
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    kind: Any = AutoModelForImageTextToText if load_processor(path) else AutoModelForCausalLM
    with _naming_model(path):
        if path.startswith(PACKAGE_PREFIX):
            gguf = gguf_in_package(path.removeprefix(PACKAGE_PREFIX))
            options |= {"gguf_file": gguf.name, "quantization_config": GgufConfig(dequantize=True)}
            folder = gguf.parent
        found: Any = kind.from_pretrained(folder, **options)
    model, loaded = found
    if missing := sorted(loaded["missing_keys"]):
        raise InvalidInputError(
            f"cannot load the model {path!r}: its files lack {len(missing)} of the weights that a "
            f"{type(model).__name__} has, the first is {missing[0]}"
        )
    assert isinstance(model, PreTrainedModel)
    return model


@contextlib.contextmanager
def _naming_model(path: str) -> Iterator[None]:
    """NotFoundError that names the model, for whatever keeps transformers from loading it."""
    try:
        yield
    except PeriluneError:
        raise
    except Exception as error:  # no folder, id or network, damaged weights, no config: there is no common class
        raise NotFoundError(
            f"cannot load the model {path!r}: give model.path as a folder with config.json, weights and tokenizer, as "
            f"a Hugging Face id (needs network or a filled cache), or as package:NAME. {type(error).__name__}: {error}"
        ) from error


def load_raw(path: str) -> tuple[dict[str, bytes], list[RawTensor]]:
    """A model as the weight stream has it: its small files by name, and its tensors, tied ones once.

    Errors as of `load_model`.
    """
    model, tokenizer = load_model(path), load_tokenizer(path)
    with tempfile.TemporaryDirectory(prefix="perilune-model-") as name:
        folder = Path(name)
        model.config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())} | load_processor(path)
    tensors: dict[int, RawTensor] = {}
    for tensor_name, tensor in model.state_dict().items():
        tensors.setdefault(tensor.data_ptr(), raw_tensor(tensor_name, tensor))
    return files, list(tensors.values())
