"""A policy made on the spot: a small Llama, and a tokenizer of words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from perilune.recipe import CreateModel
from perilune.tasks import find_task
from services.trainer.policy.model import Policy, Prepare, unprepared

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
# Words of all messages after one <bos>; what the assistant said ends with <eos>. The response follows at once.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ ' ' + message['content'] }}{% if message['role'] == 'assistant' %}{{ ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
INITIAL_STD = 0.05  # of all matrices: a narrow model starts faster with more than the usual 0.02


class LlamaSize(Protocol):
    """The shape of a model to be made; `num_kv_heads` None: as many as `num_heads`."""

    @property
    def hidden_size(self) -> int:
        """Elements of a hidden state."""

    @property
    def intermediate_size(self) -> int:
        """Elements between an MLP's two layers."""

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""

    @property
    def num_kv_heads(self) -> int | None:
        """Heads of keys and values; None: as many as attention heads."""

    @property
    def max_positions(self) -> int:
        """Tokens of context."""


def create_policy(table: CreateModel, seed: int, prepare: Prepare = unprepared) -> Policy:
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
    with torch.random.fork_rng(devices=[]):
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
