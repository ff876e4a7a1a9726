"""A small language model made on the spot, with a tokenizer over what occurs in the training texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Regex, decoders, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from services.trainer.policy.created import random_llama, word_level_tokenizer
from services.trainer.policy.model import Policy

_PIECE = r"\d| ?[^\W\d]+|\s|[^\w\s]"  # a digit, a word, or one other character: arithmetic is done digit by digit
_CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class SmallSize:
    """Its shape."""

    hidden_size: int = 96
    intermediate_size: int = 256
    num_layers: int = 3
    num_heads: int = 4
    num_kv_heads: int | None = None  # as many as num_heads
    max_positions: int = 512


def small_policy(texts: Iterable[str], seed: int, size: SmallSize = SmallSize()) -> Policy:
    """A Llama with random weights; the same texts and seed make the same one."""
    return random_llama(digit_tokenizer(texts), size, seed)


def digit_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Digits, words and other characters, each one token; what the texts do not hold is unknown. Nothing is lost: the
    tokens of a text, joined, are the text."""
    pieces = {piece for text in texts for piece in re.findall(_PIECE, text)} | set("0123456789")
    splitter = pre_tokenizers.Split(Regex(_PIECE), "isolated")
    return word_level_tokenizer(sorted(pieces), splitter, _CHAT_TEMPLATE, decoders.Fuse())
