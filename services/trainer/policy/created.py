"""A policy made on the spot: a small Llama, which may see, and a tokenizer of words."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from perilune.models.vision import processor_files
from perilune.models.vision.names import save_as_published
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
PLACEHOLDER = "<image>"
# The same, of messages whose contents may be parts.
PARTS_TEMPLATE = CHAT_TEMPLATE.replace(
    "{{ ' ' + message['content'] }}",
    "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}{% for part in message['content'] %}"
    f"{{{{ ' ' + (part['text'] if part['type'] == 'text' else '{PLACEHOLDER}') }}}}{{% endfor %}}{{% endif %}}",
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
    """A Llama that vLLM and SGLang can serve too, with random weights and the words of a task as its vocabulary.

    With `[model.create.vision]` it is the language part of a LLaVA.
    """
    tokenizer = tokenizer_of(table)
    prepare(tokenizer)
    return random_llava(tokenizer, table, seed) if table.vision else random_llama(tokenizer, table, seed)


def tokenizer_of(table: CreateModel) -> PreTrainedTokenizerFast:
    """The tokenizer of a model that is made: a task's words, and a placeholder of images if it sees."""
    words = find_task(table.task).VOCABULARY
    if table.vision is None:
        return word_tokenizer(words)
    splitter, special = pre_tokenizers.WhitespaceSplit(), {"image_token": PLACEHOLDER}
    return word_level_tokenizer((*words, PLACEHOLDER), splitter, PARTS_TEMPLATE, special_tokens=special)


def random_llama(tokenizer: PreTrainedTokenizerFast, size: LlamaSize, seed: int) -> Policy:
    """A Llama with random weights; the same arguments make the same one."""
    config = llama_config(tokenizer, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Policy(LlamaForCausalLM(config), tokenizer)


def random_llava(tokenizer: PreTrainedTokenizerFast, table: CreateModel, seed: int) -> Policy:
    """A LLaVA with random weights: an image's patches go through a few layers, and a projector into a Llama.

    Each patch is one slot of the prompt. There is no pooled output, and no patch for the whole image (SigLIP).
    """
    size = table.vision
    assert size is not None  # the caller's check
    encoder = {
        "model_type": "siglip_vision_model",
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_heads,
        "image_size": size.image_size,
        "patch_size": size.patch_size,
        "vision_use_head": False,
    }
    settings: dict[str, Any] = {
        "text_config": llama_config(tokenizer, table),
        "image_token_index": tokenizer.convert_tokens_to_ids(PLACEHOLDER),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": True,
        "architectures": [LlavaForConditionalGeneration.__name__],  # vLLM knows a model that sees by it
    }
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    config = LlavaConfig(vision_config=encoder, **settings, **ends)
    pixels = SiglipImageProcessorPil(size={"height": size.image_size, "width": size.image_size})
    processor = LlavaProcessor(pixels, tokenizer, patch_size=size.patch_size, vision_feature_select_strategy="full")
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        processor.save_pretrained(folder)
        model = LlavaForConditionalGeneration(config)
        save_as_published(model)
        return Policy(model, tokenizer, processor_files(folder))


def llama_config(tokenizer: PreTrainedTokenizerFast, size: LlamaSize) -> LlamaConfig:
    """The configuration of a Llama that reads a tokenizer's words."""
    return LlamaConfig(
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


def word_tokenizer(words: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """One token a word: text is words separated by spaces, and decodes to words separated by single spaces."""
    return word_level_tokenizer(words, pre_tokenizers.WhitespaceSplit(), CHAT_TEMPLATE)


def word_level_tokenizer(
    words: Iterable[str],
    splitter: pre_tokenizers.PreTokenizer,
    chat_template: str,
    decoder: decoders.Decoder | None = None,
    special_tokens: Mapping[str, str] | None = None,
) -> PreTrainedTokenizerFast:
    """One token for each of the words that `splitter` makes of a text, behind SPECIAL_TOKENS; others are unknown.

    `special_tokens`: more of them, by their names; they are among the words.
    """
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
        **({"extra_special_tokens": dict(special_tokens)} if special_tokens else {}),
    )
