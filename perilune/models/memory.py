"""Estimates of a card's memory: what a model takes there in training and in sampling. Needs no torch.

Estimates, not measurements of the machine at hand: the bytes of a token in a row were fitted to one H100, in bf16, with
models of 0.5B and 1.5B parameters (1.6 and 3.3 MB a token, linear in the row's length).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

GIB = 1 << 30
CONTEXT_BYTES = GIB  # CUDA's context of one process, its libraries' work space, fragments
SHARE_USED = 0.9  # of a card's free memory: the rest is for what an estimate misses
CPU_ROW_TOKENS = 2048  # of a trainer's row, where the recipe leaves it open
AUTO_ROW_TOKENS = 16_384  # on a card at most: longer rows are no faster
MIN_ROW_TOKENS = 1024
MIN_CACHE_BYTES = GIB  # keys and values with less room keep too few samples running
PREFILL_TOKENS = 2048  # in one pass of an engine
MAX_PREFILL_TOKENS = 8192  # in one pass of the embedded engine on a large card, where the room for it is measured


@dataclass(frozen=True)
class Shape:
    """A decoder of the usual kind: grouped attention and a gated feed-forward part in each layer."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    max_context: int  # tokens
    ties_embeddings: bool = False
    num_experts: int = 1  # that have the feed-forward part each

    @property
    def num_parameters(self) -> int:
        """Parameters, without norms and biases, which are few."""
        attention = 2 * self.hidden_size * self.head_size * (self.num_heads + self.num_kv_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size * self.num_experts
        return self.num_layers * layer + (1 if self.ties_embeddings else 2) * self.vocabulary_size * self.hidden_size

    @property
    def num_cached_values(self) -> int:
        """Values that keys and values of one token have."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_size


@dataclass(frozen=True)
class Load:
    """Describes what a run computes with: the model, and the keys of its recipe that decide about memory."""

    shape: Shape
    row_tokens: int | None = CPU_ROW_TOKENS  # trainer.microbatch_tokens; None: "auto"
    recomputes_layers: bool = False  # trainer.activation_checkpointing = "layers"
    trains_in_bf16: bool = False  # trainer.precision
    samples_in_bf16: bool = False  # model.dtype
    has_moments: bool = True  # trainer.optimizer = "adamw"
    has_adapter: bool = False  # trainer.adapter
    max_running: int = 256  # rollout.max_running


def shape_from_config(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a config.json describes; None if it names its sizes otherwise than Llama, Qwen and most do."""
    text = config.get("text_config")
    table = {**config, **text} if isinstance(text, Mapping) else config
    try:
        heads, hidden = int(table["num_attention_heads"]), int(table["hidden_size"])
        experts = int(table.get("num_experts") or table.get("num_local_experts") or 1)
        feed_forward = (table.get("moe_intermediate_size") if experts > 1 else None) or table["intermediate_size"]
        return Shape(
            num_layers=int(table["num_hidden_layers"]),
            hidden_size=hidden,
            intermediate_size=int(feed_forward),
            vocabulary_size=int(table["vocab_size"]),
            num_heads=heads,
            num_kv_heads=int(table.get("num_key_value_heads") or heads),
            head_size=int(table.get("head_dim") or hidden // heads),
            max_context=int(table["max_position_embeddings"]),
            ties_embeddings=bool(table.get("tie_word_embeddings")),
            num_experts=experts,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def training_bytes_per_parameter(load: Load) -> int:
    """Weights in float32, and what training adds: gradients, AdamW's two moments, the copy that computes in bf16."""
    frozen = 4 + (2 if load.trains_in_bf16 else 0)
    return frozen if load.has_adapter else frozen + 4 + (8 if load.has_moments else 0)


def row_bytes_per_token(load: Load) -> int:
    """Returns what the backward pass keeps for each token of a row; for float32 twice as much as was measured for bf16.

    Where layers are computed again: each one's input, and all of one layer.
    """
    shape = load.shape
    layer = 8 * shape.intermediate_size + 30 * shape.hidden_size
    in_bf16 = shape.num_layers * (2 * shape.hidden_size if load.recomputes_layers else layer)
    in_bf16 += layer if load.recomputes_layers else 0
    return in_bf16 if load.trains_in_bf16 else 2 * in_bf16


def training_bytes(load: Load, num_ranks: int = 1) -> int:
    """Returns what one rank of a trainer takes, which has its part of the model and rows of its own; at least, for
    "auto"."""
    model = load.shape.num_parameters * training_bytes_per_parameter(load) // num_ranks
    return CONTEXT_BYTES + model + (load.row_tokens or MIN_ROW_TOKENS) * row_bytes_per_token(load)


def largest_row(load: Load, free_bytes: int, num_ranks: int = 1) -> int:
    """Tokens of the longest row that fits a card beside the model; 0 if the model alone does not."""
    model = load.shape.num_parameters * training_bytes_per_parameter(load) // num_ranks
    room = int(free_bytes * SHARE_USED) - CONTEXT_BYTES - model
    return max(0, room // row_bytes_per_token(load))


def auto_row(load: Load, free_bytes: int, num_ranks: int = 1) -> int:
    """Tokens of a row where the recipe leaves it to the card's memory: a multiple of 256, within bounds."""
    fits = largest_row(load, free_bytes, num_ranks)
    return max(MIN_ROW_TOKENS, min(AUTO_ROW_TOKENS, fits - fits % 256))


def with_row(load: Load, free_bytes: int, num_ranks: int = 1) -> Load:
    """The load with the row that `auto` makes of so much memory, where the recipe leaves it open."""
    return load if load.row_tokens else replace(load, row_tokens=auto_row(load, free_bytes, num_ranks))


def logits_at_once(card_bytes: int | None) -> int:
    """Logits of a row that are held at a time: 64 MiB of them in float32 on a CPU, a 64th of a card's memory.

    With their gradients and copies that is about a twentieth of the card, which SHARE_USED leaves.

    >>> logits_at_once(None), logits_at_once(80 * GIB)
    (16777216, 335544320)
    """
    return max(1 << 24, (card_bytes or 0) // 256)


def largest_model(free_bytes: int) -> int:
    """Parameters of the largest model that AdamW trains on a card in bf16, with rows that take a quarter of it."""
    return int((free_bytes * SHARE_USED - CONTEXT_BYTES) * 0.75 / 18)


def sampling_bytes(load: Load) -> int:
    """Returns what an engine takes beside keys and values: the version that serves, the next one, one pass."""
    itemsize = 2 if load.samples_in_bf16 else 4
    return CONTEXT_BYTES + itemsize * 2 * load.shape.num_parameters + pass_bytes(load)


def pass_bytes(load: Load, num_tokens: int = PREFILL_TOKENS) -> int:
    """Returns what one pass of an engine takes that reads so many tokens and draws one for every sample that may
    run."""
    itemsize, shape = 2 if load.samples_in_bf16 else 4, load.shape
    logits = 3 * 4 * load.max_running * shape.vocabulary_size  # in float32: as computed, scaled, as probabilities
    return itemsize * num_tokens * (4 * shape.hidden_size + 3 * shape.intermediate_size) + logits


def prefill_tokens(card_bytes: int) -> int:
    """Tokens of prompts that an engine reads in one pass on a card of this size: enough for fast products.

    >>> prefill_tokens(8 * GIB), prefill_tokens(24 * GIB), prefill_tokens(80 * GIB)
    (1024, 3072, 8192)
    """
    return min(MAX_PREFILL_TOKENS, max(1024, card_bytes // (8 << 20)))


def useful_cache_bytes(load: Load) -> int:
    """Keys and values of as many samples as may run, each as long as the model's positions reach: never more."""
    itemsize = 2 if load.samples_in_bf16 else 4
    return load.max_running * load.shape.max_context * load.shape.num_cached_values * itemsize
