"""The policy at version 0: a Hugging Face model from a folder, the hub or a package, or one made on the spot."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from perilune.errors import InvalidInputError, NotFoundError, PeriluneError
from perilune.models.chat import check_tokenizer, closing_token, set_template
from perilune.recipe import CreateModel, Recipe
from perilune.recipe.files import chat_template_text
from perilune.tasks import find_task
from services.trainer.policy.attention import use_packed_attention
from services.trainer.probe import check_packing
from services.trainer.sources import PACKAGE_PREFIX, gguf_in_package

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
# Words of all messages after one <bos>; what the assistant said ends with <eos>. The response follows at once.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ ' ' + message['content'] }}{% if message['role'] == 'assistant' %}{{ ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
INITIAL_STD = 0.05  # of all matrices: a narrow model starts faster with more than the usual 0.02


@dataclass(frozen=True)
class Policy:
    """A causal language model in float32 and its tokenizer.

    The model stays in evaluation mode, in training too: its log-probabilities must be those of the engines, and
    dropout would make the reference and the policy differ by chance.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        """InvalidInputError for a model whose log-probabilities the trainer would compute wrongly."""
        config = self.model.config.get_text_config()
        check_tokenizer(self.tokenizer, config.vocab_size, type(self.model).__name__)
        self.model.eval()
        use_packed_attention(self.model)
        if self.model.device.type != "meta":  # without weights there is nothing to look at
            check_packing(self.model)

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Writes a Hugging Face model folder, loadable by AutoModelForCausalLM; of these weights, if they are given."""
        self.model.save_pretrained(folder, state_dict=dict(state) if state else None)
        for name, content in self.small_files.items():
            (folder / name).write_bytes(content)

    @cached_property
    def small_files(self) -> dict[str, bytes]:
        """The files of the model's folder beside the weights: configuration and tokenizer. They never change."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.model.config.save_pretrained(folder)
            if self.model.generation_config is not None:
                self.model.generation_config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}

    @cached_property
    def eos_token_id(self) -> int:
        """What a response ends with: of the model's and the tokenizer's end tokens, the one with which the
        chat template ends what the assistant says, else the first."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ends = configured if isinstance(configured, list) else [configured]
        known = [token for token in (*ends, self.tokenizer.eos_token_id) if token is not None]
        if not known:
            raise InvalidInputError("the model has no end-of-sequence token; set eos_token_id in its config")
        closing = closing_token(self.tokenizer, known)
        return known[0] if closing is None else closing


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


Prepare = Callable[[PreTrainedTokenizerBase], None]


def _preparation(recipe: Recipe) -> Prepare:
    """Gives a tokenizer the recipe's chat template."""
    table = recipe.model
    template = table.chat_template and chat_template_text(table.chat_template)
    return lambda tokenizer: set_template(tokenizer, template, table.template_arguments)


def _leave(tokenizer: PreTrainedTokenizerBase) -> None:
    """Changes nothing."""


def hollow_policy(small_files: Mapping[str, bytes]) -> Policy:
    """The policy that has these files, with any values in its tensors: another rank has them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in small_files.items():
            (Path(folder) / name).write_bytes(content)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
        policy = Policy(model, AutoTokenizer.from_pretrained(folder))
    policy.model.to_empty(device="cpu")
    policy.model.tie_weights()
    return policy


def load_policy(path: str, prepare: Prepare = _leave) -> Policy:
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


class LlamaSize(Protocol):
    """The shape of a model to be made; `num_kv_heads` None: as many as `num_heads`."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def num_kv_heads(self) -> int | None: ...
    @property
    def max_positions(self) -> int: ...


def create_policy(table: CreateModel, seed: int, prepare: Prepare = _leave) -> Policy:
    """A Llama that vLLM and SGLang can serve too, with random weights and the words of a task as its vocabulary."""
    tokenizer = word_tokenizer(find_task(table.task).VOCABULARY)
    prepare(tokenizer)
    return random_llama(tokenizer, table, seed)


def random_llama(tokenizer: PreTrainedTokenizerFast, size: LlamaSize, seed: int) -> Policy:
    """A Llama with random weights; the same arguments make the same one."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_kv_heads or size.num_heads,
        max_position_embeddings=size.max_positions,
        initializer_range=INITIAL_STD,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Policy(LlamaForCausalLM(config), tokenizer)


def word_tokenizer(words: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """One token a word: text is words separated by spaces, and decodes to words separated by single spaces."""
    return word_level_tokenizer(words, pre_tokenizers.WhitespaceSplit(), CHAT_TEMPLATE)


def word_level_tokenizer(
    words: Iterable[str],
    splitter: pre_tokenizers.PreTokenizer,
    chat_template: str,
    decoder: decoders.Decoder | None = None,
) -> PreTrainedTokenizerFast:
    """One token for each of the words that `splitter` makes of a text, behind SPECIAL_TOKENS; others are unknown."""
    pad, bos, eos, unknown = SPECIAL_TOKENS
    vocabulary = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = splitter
    if decoder:
        tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unknown,
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )
