"""Says which layout of keys and values an engine has, and how much memory: from its options, the device and the
model."""

from __future__ import annotations

from typing import Any

import torch

from perilune.errors import SettingsError
from perilune.models.attention.interface import text_part
from perilune.models.memory import (
    GIB,
    SHARE_USED,
    Load,
    pass_bytes,
    prefill_tokens,
    shape_from_config,
    useful_cache_bytes,
)
from perilune.models.vision import VisionReader
from perilune.recipe import TorchEngineTable
from services.rollout.engines.base import DEFAULT_CACHE_BYTES, EngineSpec
from services.rollout.engines.embedded.decoder import Decoder
from services.rollout.engines.embedded.fusion import fuse_norms, fuse_projections
from services.rollout.engines.embedded.paged.blocks import BLOCK_TOKENS, BlockPool
from services.rollout.engines.embedded.paged.decoder import PagedDecoder
from services.rollout.engines.embedded.paged.kernels import Kernels, find_kernels
from services.rollout.engines.embedded.paged.pages import FixedRows, Pages
from services.rollout.engines.embedded.sight import Sight
from services.rollout.engines.embedded.slot_decoder import SlotDecoder
from services.rollout.engines.probe import check_decoding

CPU_PASS_TOKENS = 512  # of prompts in one pass
MIN_ROOM = GIB // 4  # for keys and values, on a card
QUERY_ROWS = 64  # queries that a program of a card takes together: tokens, times the heads that share a key


def make_decoder(model: Any, spec: EngineSpec, sight: Sight, vision: VisionReader | None = None) -> Decoder:
    """The decoder for a model that is where it computes; `vision`: the reader of its images, if it sees.

    InvalidInputError if the model cannot be decoded; SettingsError if its card has no room for keys and values.
    """
    assert isinstance(spec.options, TorchEngineTable)
    layout = spec.options.cache
    is_paged = layout == "paged" or (layout == "auto" and model.device.type == "cuda")
    make = in_pages if is_paged else in_slots
    return make(model, spec.max_running, spec.kv_cache_bytes, sight=sight, vision=vision)


def in_slots(
    model: Any,
    max_running: int,
    cache_bytes: int | None,
    *,
    sight: Sight | None = None,
    vision: VisionReader | None = None,
) -> SlotDecoder:
    """See `make_decoder`."""
    token_bytes = check_decoding(model, vision=vision).elements_per_token * model.dtype.itemsize
    return SlotDecoder(model, max_running, (cache_bytes or DEFAULT_CACHE_BYTES) // token_bytes, sight or Sight(model))


def in_pages(
    model: Any,
    max_running: int,
    cache_bytes: int | None,
    kernels: Kernels | None = None,
    *,
    sight: Sight | None = None,
    vision: VisionReader | None = None,
) -> PagedDecoder:
    """See `make_decoder`; `kernels`: those of the device, if not given."""
    cache = check_decoding(model, FixedRows, vision)
    kernels = kernels or find_kernels(model.device, model.dtype)
    fuse_projections(text_part(model))
    fuse_norms(model, kernels.rms_norm)
    pass_tokens = CPU_PASS_TOKENS
    if model.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(model.device)
        pass_tokens = prefill_tokens(total)
        cache_bytes = cache_bytes or card_room(model, free, pass_tokens, max_running)
    block_bytes = cache.elements_per_token * model.dtype.itemsize * BLOCK_TOKENS
    pool = BlockPool(max(1, (cache_bytes or DEFAULT_CACHE_BYTES) // block_bytes))
    pages = Pages(pool.size, model.device, kernels, _tile_tokens(model))
    pages.reserve(cache.shapes, model.dtype)
    return PagedDecoder(model, pages, pool, max_running, pass_tokens, sight or Sight(model))


def _tile_tokens(model: Any) -> int:
    """Tokens of a prompt whose queries fill a program of a card."""
    config = model.config.get_text_config()
    heads_per_key = config.num_attention_heads // (
        getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    )
    rows = QUERY_ROWS if model.dtype.itemsize == 2 else QUERY_ROWS // 2
    return int(max(1, rows // heads_per_key))


def card_room(model: Any, free_bytes: int, pass_tokens: int, max_running: int) -> int:
    """Bytes for keys and values that a card has, beside the next version and one pass; no more than are of use.

    SettingsError if there are next to none.
    """
    shape = shape_from_config(model.config.to_dict())
    weights = sum(parameter.nbytes for parameter in model.parameters())
    room = int(free_bytes * SHARE_USED) - weights
    if shape:
        load = Load(shape, samples_in_bf16=model.dtype.itemsize == 2, max_running=max_running)
        room = min(room - pass_bytes(load, pass_tokens), useful_cache_bytes(load))
    if room < min(MIN_ROOM, useful_cache_bytes(load) if shape else MIN_ROOM):
        raise SettingsError(
            f"the card has {free_bytes / GIB:.1f} GiB free beside the model: the next version takes "
            f"{weights / GIB:.1f} of it, and too little is left for keys and values; free memory there, lower "
            "rollout.max_running, or choose how much with PERILUNE_KV_CACHE_GIB"
        )
    return room
