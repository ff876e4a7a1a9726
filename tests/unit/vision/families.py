"""Tiny models that see, one of each family: made from a configuration, with a processor and a tokenizer of words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from perilune.recipe import CreateModel
from services.trainer.policy.created import create_policy
from services.trainer.policy.model import Policy
from services.trainer.policy.sources import load_policy

torch.set_num_threads(1)

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
LLAVA = {
    "task": "search",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "max_positions": 256,
    "vision": {"image_size": 32, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64},
}
# A template that knows contents as lists of parts alone, as many have it.
TEMPLATE = (
    "<bos>{% for message in messages %}{% for part in message['content'] %}"
    "{{ ' ' + (part['text'] if part['type'] == 'text' else 'PLACEHOLDER') }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ ' <eos>' }}{% endif %}{% endfor %}"
)


def picture(seed: int = 0, width: int = 40, height: int = 24) -> bytes:
    """Random pixels as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def llava(folder: Path) -> Policy:
    """Through a recipe's `[model.create.vision]`."""
    del folder
    policy = create_policy(CreateModel.model_validate(LLAVA), seed=1)
    _spread(policy.model)
    return policy


def idefics3(folder: Path) -> Policy:
    """Tiles and a whole picture, each with tokens of its own around it; pixel shuffle."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles]
    tokenizer = _tokenizer(special, "<image>")
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
    )
    pixels = Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    return _policy(
        folder, Idefics3ForConditionalGeneration(config), Idefics3Processor(pixels, tokenizer, image_seq_len=4)
    )


def qwen(folder: Path) -> Policy:
    """As many slots as a picture has patches, with positions by row and column."""
    special = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer = _tokenizer(special, "<|vision_start|><|image_pad|><|vision_end|>")
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen2_5_VLConfig(
        text_config=TEXT
        | {"vocab_size": len(tokenizer), "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 32,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        **dict(zip(names, tokenizer.convert_tokens_to_ids(special), strict=True)),
    )
    tokenizer.save_pretrained(folder)
    pixels = Qwen2VLImageProcessorPil(patch_size=4, min_pixels=64, max_pixels=1024)
    return _policy(folder, Qwen2_5_VLForConditionalGeneration(config), pixels)


FAMILIES = {"llava": llava, "idefics3": idefics3, "qwen": qwen}


def _policy(folder: Path, model: PreTrainedModel, processor: Any) -> Policy:
    _spread(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return load_policy(str(folder))


def _spread(model: PreTrainedModel) -> None:
    """Draws large weights: with small ones a picture changes next to nothing."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=random) * 0.2)


def _tokenizer(special: list[str], shown: str) -> PreTrainedTokenizerFast:
    names = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = [*names, *special, *(f"w{number}" for number in range(60))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=TEMPLATE.replace("PLACEHOLDER", shown),
    )
    made.add_special_tokens({"additional_special_tokens": special})
    return made
