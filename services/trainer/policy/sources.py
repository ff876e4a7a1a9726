"""A policy by its source: made on the spot, from a folder, the hub, or a package's GGUF file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedTokenizerBase

from perilune.models.chat import set_template, take_plain_contents
from perilune.models.device import CPU, Device
from perilune.models.files import blank_model, build_tokenizer
from perilune.models.sources import load_model, load_processor, load_tokenizer
from perilune.models.vision.reader import settings_of
from perilune.recipe import Recipe
from perilune.recipe.files import chat_template_text
from services.trainer.policy.created import create_policy, tokenizer_of
from services.trainer.policy.model import Policy, Prepare, unprepared


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
        tokenizer: PreTrainedTokenizerBase = tokenizer_of(create)
    else:
        assert path is not None  # the recipe's check: one of both
        tokenizer = load_tokenizer(path)
        if load_processor(path):
            take_plain_contents(tokenizer)
    _preparation(recipe)(tokenizer)
    return tokenizer


def sees(recipe: Recipe) -> bool:
    """Tests whether the recipe's policy reads images. NotFoundError: there is no such model."""
    create, path = recipe.model.create, recipe.model.path
    return create.vision is not None if create else bool(path and load_processor(path))


def _preparation(recipe: Recipe) -> Prepare:
    """Gives a tokenizer the recipe's chat template."""
    table = recipe.model
    template = table.chat_template and chat_template_text(table.chat_template)
    return lambda tokenizer: set_template(tokenizer, template, table.template_arguments)


def hollow_policy(model_files: Mapping[str, bytes], device: Device = CPU) -> Policy:
    """The policy that has these files, with any values in its tensors: another rank has them."""
    model, tokenizer = blank_model(model_files, torch.float32, "meta"), build_tokenizer(model_files)
    policy = Policy(model, tokenizer, settings_of(model_files))
    policy.model.to_empty(device=str(device))
    policy.model.tie_weights()
    return policy


def load_policy(path: str, prepare: Prepare = unprepared) -> Policy:
    """A folder, a Hugging Face id, or `package:NAME` for the GGUF file inside an installed package.

    `prepare` is handed the tokenizer before it is checked.
    """
    model = load_model(path)
    tokenizer, processor = load_tokenizer(path), load_processor(path)
    if processor:
        take_plain_contents(tokenizer)
    prepare(tokenizer)
    return Policy(model, tokenizer, processor)
