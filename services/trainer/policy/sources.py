"""A policy by its source: made on the spot, from a folder, the hub, or a package's GGUF file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from perilune.errors import InvalidInputError, NotFoundError, PeriluneError
from perilune.models.chat import set_template
from perilune.models.device import CPU, Device
from perilune.models.files import blank_model, build_tokenizer
from perilune.recipe import Recipe
from perilune.recipe.files import chat_template_text
from perilune.tasks import find_task
from services.trainer.policy.created import create_policy, word_tokenizer
from services.trainer.policy.model import Policy, Prepare, unprepared
from services.trainer.policy.packages import PACKAGE_PREFIX, gguf_in_package


def make_policy(recipe: Recipe) -> Policy:
    """The recipe's policy before any training; the same recipe makes the same weights.

    Raises:
        NotFoundError: no such folder, package or hub model; the message says what to do.
        InvalidInputError: a model that the trainer cannot train.
    """
    if recipe.model.create is not None:
        return create_policy(recipe.model.create, recipe.seed, _preparation(recipe))
    assert recipe.model.path is not None  # the recipe's check: one of both
    return load_policy(recipe.model.path, _preparation(recipe))


def make_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer of the recipe's policy, without its weights. Errors as of `make_policy`."""
    create, path = recipe.model.create, recipe.model.path
    if create is not None:
        tokenizer: PreTrainedTokenizerBase = word_tokenizer(find_task(create.task).VOCABULARY)
    else:
        assert path is not None  # the recipe's check: one of both
        tokenizer = load_tokenizer(path)
    _preparation(recipe)(tokenizer)
    return tokenizer


def _preparation(recipe: Recipe) -> Prepare:
    """Gives a tokenizer the recipe's chat template."""
    table = recipe.model
    template = table.chat_template and chat_template_text(table.chat_template)
    return lambda tokenizer: set_template(tokenizer, template, table.template_arguments)


def hollow_policy(model_files: Mapping[str, bytes], device: Device = CPU) -> Policy:
    """The policy that has these files, with any values in its tensors: another rank has them."""
    policy = Policy(blank_model(model_files, torch.float32, "meta"), build_tokenizer(model_files))
    policy.model.to_empty(device=str(device))
    policy.model.tie_weights()
    return policy


def load_policy(path: str, prepare: Prepare = unprepared) -> Policy:
    """A folder, a Hugging Face id, or `package:NAME` for the GGUF file inside an installed package.

    `prepare` is handed the tokenizer before it is checked.
    """
    model = _load_model(path)
    tokenizer = load_tokenizer(path)
    prepare(tokenizer)
    return Policy(model, tokenizer)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model that is named as for `load_policy`."""
    with _naming_model(path):
        if path.startswith(PACKAGE_PREFIX):
            gguf = gguf_in_package(path.removeprefix(PACKAGE_PREFIX))
            return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        return AutoTokenizer.from_pretrained(path)


def _load_model(path: str) -> PreTrainedModel:
    """The model in float32. InvalidInputError if its files lack weights: transformers would draw them at random."""
    folder: str | Path = path
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    with _naming_model(path):
        if path.startswith(PACKAGE_PREFIX):
            gguf = gguf_in_package(path.removeprefix(PACKAGE_PREFIX))
            options |= {"gguf_file": gguf.name, "quantization_config": GgufConfig(dequantize=True)}
            folder = gguf.parent
        found: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
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
    # No folder, file, id or network; damaged weights; a config or tokenizer that is none: there is no common class.
    except Exception as error:
        raise NotFoundError(
            f"cannot load the model {path!r}: give model.path as a folder with config.json, weights and tokenizer, as "
            f"a Hugging Face id (needs network or a filled cache), or as package:NAME. {type(error).__name__}: {error}"
        ) from error
