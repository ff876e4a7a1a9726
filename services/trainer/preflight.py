"""Mistakes in a recipe's models, adapters and stages that files on this machine show. No model is loaded."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from perilune.data.examples import Example, read_examples, refuse_long
from perilune.errors import InvalidInputError, NotFoundError
from perilune.models.chat import other_tokenizer, vocabulary_digest, with_defaults
from perilune.models.masking import tokenize
from perilune.models.packages import PACKAGE_PREFIX, gguf_in_package
from perilune.recipe import Mistake, Recipe, RowsStage
from perilune.recipe.files import chat_template_text
from perilune.recipe.preflight import absent_targets, no_room, unseen_images

HUB_PATIENCE_S = 5.0
NUM_MEASURED = 1_000  # examples of a stage's files whose length is looked at
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "model*.bin")
GGUF_STRING, GGUF_LIST = 8, 9
GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value, by its kind
GGUF_KEYS = {  # by their ends, and what config.json calls them
    ".context_length": "max_position_embeddings",
    ".block_count": "num_hidden_layers",
    ".embedding_length": "hidden_size",
    ".feed_forward_length": "intermediate_size",
    ".attention.head_count": "num_attention_heads",
    ".attention.head_count_kv": "num_key_value_heads",
    ".attention.key_length": "head_dim",
    "tokenizer.ggml.tokens": "vocab_size",
}
# What configurations call the number of positions.
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


def mistakes(recipe: Recipe) -> list[Mistake]:
    """A model that is not there, a context that is too short, adapters for no layer, and examples that are none."""
    return [*_of_model(recipe), *_of_frozen(recipe), *_of_teacher(recipe), *_of_stages(recipe)]


def _of_model(recipe: Recipe) -> Iterator[Mistake]:
    path = recipe.model.path
    if recipe.model.chat_template is not None:
        yield from _of_template(recipe.model.chat_template, recipe.model.template_arguments)
    if path is None:
        return
    try:
        config = config_of_path(path)
    except NotFoundError as error:
        yield Mistake("model.path", str(error))
        return
    if "vision_config" not in config:
        yield from unseen_images(recipe, "take a model.path that sees")
    context = _context_of_config(config)
    if context is not None:
        yield from no_room(recipe, context)
    if recipe.trainer.adapter and (layers := matrices(Path(path))):
        yield from absent_targets(recipe, layers)


def _of_frozen(recipe: Recipe) -> Iterator[Mistake]:
    path = recipe.trainer.objective.frozen_path
    if path is not None:
        try:
            _context_of_path(path)
        except NotFoundError as error:
            yield Mistake("trainer.objective.frozen_model", str(error))


def _of_teacher(recipe: Recipe) -> Iterator[Mistake]:
    """A teacher that is not there, or whose tokens are others than the policy's."""
    if recipe.teacher is None:
        return
    path = recipe.teacher.model
    is_here = path.startswith(PACKAGE_PREFIX) or Path(path).is_dir()
    if not is_here and (recipe.teacher.address or "PERILUNE_TEACHER_ADDRESS" in os.environ):
        return  # its service has it, and rollout workers compare with that
    sources = importlib.import_module("services.trainer.policy.sources")  # imports torch
    try:
        config_of_path(path)  # says within seconds what transformers tries again for, where there is no network
        teacher, policy = sources.load_tokenizer(path), sources.make_tokenizer(recipe)
    except NotFoundError as error:
        yield Mistake("teacher.model", str(error))
        return
    if vocabulary_digest(teacher) != vocabulary_digest(policy):
        yield Mistake("teacher.model", other_tokenizer(path))


def _of_template(template: str, arguments: Mapping[str, Any]) -> Iterator[Mistake]:
    try:
        with_defaults(chat_template_text(template), arguments)
    except InvalidInputError as error:
        key, _, text = str(error).partition(": ")
        yield Mistake(key, text)


def context_of(recipe: Recipe) -> int | None:
    """The positions of a recipe's model; None where its files do not say. NotFoundError if there is no such model."""
    if recipe.model.create is not None:
        return recipe.model.create.max_positions
    path = recipe.model.path
    assert path is not None  # the recipe's check: one of both
    return _context_of_path(path)


def _context_of_path(path: str) -> int | None:
    return _context_of_config(config_of_path(path))


def config_of_path(path: str) -> dict[str, Any]:
    """A model's configuration, with the keys of config.json also where it is a GGUF file. Errors as of `_config`."""
    if not path.startswith(PACKAGE_PREFIX):
        return _config(path)
    file = gguf_in_package(path.removeprefix(PACKAGE_PREFIX))
    try:
        return _config_of_gguf(file)
    except (OSError, struct.error, KeyError) as error:
        raise NotFoundError(f"{file} cannot be read: {error}") from error


def _config(path: str) -> dict[str, Any]:
    """A model's configuration. NotFoundError if there is no such model, or it lacks what is needed to be loaded."""
    folder = Path(path)
    if folder.is_dir():
        _check_folder(folder)
        file = folder / "config.json"
    elif folder.exists():
        raise NotFoundError(f"{path} is a file; name the folder with config.json, weights and tokenizer")
    else:
        file = _config_from_hub(path)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise NotFoundError(f"{file} is no configuration of a model")
    return config


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise NotFoundError(f"the folder {folder} has no config.json")
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES):
        raise NotFoundError(f"the folder {folder} has no weights, such as model.safetensors")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise NotFoundError(f"the folder {folder} has no tokenizer, such as tokenizer.json")


def _config_from_hub(name: str) -> Path:
    """The configuration of a hub's model, from its cache or fetched. NotFoundError if neither has it."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = huggingface_hub.try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        _reach(huggingface_hub.constants.ENDPOINT)
        return Path(huggingface_hub.hf_hub_download(name, "config.json", etag_timeout=HUB_PATIENCE_S))
    # What the hub's client raises for names that are none, models that are not there, and no network alike.
    except (HFValidationError, HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotFoundError(
            f"there is no folder {name!r}, and no model of that name in the Hugging Face cache or on the hub: "
            f"{reason:.200}"
        ) from error


def _reach(endpoint: str) -> None:
    """Raises an OSError if the hub does not answer at all: its client would try again for half a minute."""
    with contextlib.suppress(urllib.error.HTTPError):  # whatever it answers, it is there
        urllib.request.urlopen(endpoint, timeout=HUB_PATIENCE_S).close()


def _context_of_config(config: dict[str, Any]) -> int | None:
    text = config.get("text_config")
    table = {**config, **text} if isinstance(text, dict) else config
    return next((table[key] for key in CONTEXT_KEYS if isinstance(table.get(key), int)), None)


def _config_of_gguf(file: Path) -> dict[str, int]:
    """The sizes of a GGUF file's model. Its library would read all of the file, which takes seconds."""
    found: dict[str, int] = {}
    with file.open("rb") as stream:
        magic, _, _, num_keys = struct.unpack("<4sIQQ", stream.read(24))
        for _ in range(num_keys if magic == b"GGUF" else 0):
            key, value = stream.read(_number(stream, 8)).decode(), _gguf_value(stream)
            found |= {name: value for ending, name in GGUF_KEYS.items() if key.endswith(ending)}
    return found


def _gguf_value(stream: BinaryIO) -> int:
    """Reads past a value of a GGUF file's header: what it is if it is a number, how many they are if it is a list."""
    kind = _number(stream, 4)
    if kind not in (GGUF_STRING, GGUF_LIST):
        return _number(stream, GGUF_SIZES[kind])
    is_list = kind == GGUF_LIST
    kind, count = (_number(stream, 4), _number(stream, 8)) if is_list else (kind, 1)
    for _ in range(count if kind == GGUF_STRING else 0):
        stream.seek(_number(stream, 8), 1)
    stream.seek(0 if kind == GGUF_STRING else count * GGUF_SIZES[kind], 1)
    return count


def _number(stream: BinaryIO, num_bytes: int) -> int:
    return int.from_bytes(stream.read(num_bytes), "little")


def matrices(folder: Path) -> set[str]:
    """The last names of a folder's matrices, which adapters may be for, from the headers of its safetensors files."""
    found = set()
    for file in folder.glob("*.safetensors"):
        for name, tensor in _header(file).items():
            if name.endswith(".weight") and len(tensor.get("shape", ())) == 2:
                found.add(name.removesuffix(".weight").rpartition(".")[2])
    return {name for name in found if "embed" not in name}


def _header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: its length in eight bytes, then JSON. Empty if it is none."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            return dict(json.loads(stream.read(min(length, 100 << 20))))
    except (OSError, ValueError, struct.error):
        return {}  # the trainer says what is wrong with it when it loads it


def _of_stages(recipe: Recipe) -> Iterator[Mistake]:
    """Files that hold no examples, and examples that are too long: of many the first ones."""
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, RowsStage):
            yield from _of_files(recipe, stage, f"stages.{index}.path")


def _of_files(recipe: Recipe, table: RowsStage, key: str) -> Iterator[Mistake]:
    try:
        examples = read_examples(table)
    except (NotFoundError, InvalidInputError) as error:
        yield Mistake(key, str(error))
    else:
        yield from _too_long(recipe, table, examples[:NUM_MEASURED], key)


def _too_long(recipe: Recipe, table: RowsStage, examples: Sequence[Example], key: str) -> Iterator[Mistake]:
    path = recipe.model.path
    if path is not None and not (path.startswith(PACKAGE_PREFIX) or Path(path).is_dir()):
        return  # the tokenizer of a hub's model may have to be fetched
    sources = importlib.import_module("services.trainer.policy.sources")  # imports torch
    try:
        context, tokenizer = context_of(recipe), sources.make_tokenizer(recipe)
        sequences = tokenize(tokenizer, [tokenizer.eos_token_id or 0], examples)
    except NotFoundError:
        return  # there is no such model or tokenizer, which the check of the model says with its key
    except InvalidInputError as error:
        yield Mistake(key, str(error))
        return
    if table.too_long != "refuse":
        return
    limits = [limit for limit in (context, table.max_length) if limit is not None]
    try:
        lengths = [max(len(each.tokens) for each in parts) for parts in sequences]
        refuse_long(lengths, min(limits, default=None), ", ".join(table.path))
    except InvalidInputError as error:
        yield Mistake(key, str(error))
