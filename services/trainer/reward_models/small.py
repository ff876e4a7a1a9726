"""A small language model made on the spot, with a tokenizer over what occurs in the training texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from services.trainer.model import INITIAL_STD, SPECIAL_TOKENS, Policy

_PIECE = r"\d| ?[^\W\d]+|\s|[^\w\s]"  # a digit, a word, or one other character: arithmetic is done digit by digit
_CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class SmallSize:
    """Its shape."""

    hidden_size: int = 96
    intermediate_size: int = 256
    num_layers: int = 3
    num_heads: int = 4
    max_positions: int = 512


def small_policy(texts: Iterable[str], seed: int, size: SmallSize = SmallSize()) -> Policy:
    """A Llama with random weights; the same texts and seed make the same one."""
    tokenizer = digit_tokenizer(texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_heads,
        max_position_embeddings=size.max_positions,
        initializer_range=INITIAL_STD,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Policy(LlamaForCausalLM(config), tokenizer)


def digit_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Digits, words and other characters, each one token; what the texts do not hold is unknown. Nothing is lost: the
    tokens of a text, joined, are the text."""
    pieces = {piece for text in texts for piece in re.findall(_PIECE, text)} | set("0123456789")
    pad, bos, eos, unknown = SPECIAL_TOKENS
    vocabulary = {piece: index for index, piece in enumerate((*SPECIAL_TOKENS, *sorted(pieces)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unknown,
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
