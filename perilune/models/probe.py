"""Says what a model has to show before it is believed: that a shortcut computes what its own forward pass does.

The trainer packs sequences into a row, an engine decodes from what it has kept; both put an attention function of their
own into the code of another project. A model that mixes tokens in another place as well (convolution, state-space
or linear attention), or asks more of attention than the function gives, would be computed wrongly, in silence. So at
load a few short sequences go both ways, with real weights; a difference refuses the model by name. This catches kinds
of models that no list of this project has.

Needs no torch of its own: it is handed the model, and works with that model's tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

from perilune.errors import InvalidInputError

# Of one token's log-probability, in nats; rounding makes 5e-5 of SmolLM2 in float32. In a model that was not trained
# yet all log-probabilities are nearly equal, and layers add little to the embedding: what is wrong shows far less.
MAX_GAP, ROUNDING = 1e-3, 4e-6
# Two that share a padded block of attention, one that is padded no more, and two that have next to no context.
LENGTHS = (11, 10, 6, 3, 2)
SHORT_WINDOW = 4  # less than most of LENGTHS
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size")


def sequences(config: Any) -> list[list[int]]:
    """Token ids for the probe: the same for the same config, and none that it gives a meaning of its own."""
    random, text = Random(0), config.get_text_config()
    special = {value for key, value in vars(text).items() if key.endswith("token_id") and isinstance(value, int)}
    plain = [token for token in random.sample(range(text.vocab_size), min(text.vocab_size, 64)) if token not in special]
    return [random.choices(plain, k=length) for length in LENGTHS]


@contextmanager
def short_windows(model: Any) -> Iterator[None]:
    """Narrows every window of attention, so that a few tokens do not fit into it: long probes would cost too much."""
    from perilune.models.attention.interface import text_part

    holders = [model.config, model.config.get_text_config(), *text_part(model).modules()]
    found = [(vars(holder), name) for holder in holders for name in WINDOWS if _is_wide(vars(holder).get(name))]
    before = [(attributes, name, attributes[name]) for attributes, name in found]
    for attributes, name in found:
        attributes[name] = SHORT_WINDOW
    try:
        yield
    finally:
        for attributes, name, value in reversed(before):
            attributes[name] = value


def own_logprobs(model: Any, sequences: Sequence[Any]) -> list[Any]:
    """log π of every token but the first, each sequence alone, by the model's forward pass as transformers ships it.

    `sequences`: tensors of token ids, where the model is. The attention that was set before is set again.
    """
    with plain_attention(model):
        return [logprobs(model, tokens) for tokens in sequences]


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """Within, a model attends as transformers has it."""
    from perilune.models.attention import attention_of, set_attention

    attention = attention_of(model)
    if attention not in ("sdpa", "eager"):
        set_attention(model, "sdpa" if model._supports_sdpa else "eager")
    try:
        yield
    finally:
        if attention != attention_of(model):
            set_attention(model, attention)


def check_gap(model: Any, gap: float, spread: float, doing: str, instead: str) -> None:
    """InvalidInputError if a model's log-probabilities differ by more than rounding makes.

    Args:
        gap: the largest difference of one token, in nats.
        spread: the standard deviation of the log-probabilities themselves.
        doing: when they differ, for the message.
        instead: what to do.
    """
    if math.isnan(gap):
        raise InvalidInputError(
            f"{type(model).__name__} cannot be used: its log-probabilities are not numbers (NaN); are its weights "
            "damaged?"
        )
    bound = max(MAX_GAP * min(1.0, spread) ** 2, ROUNDING)
    if gap > bound:
        raise InvalidInputError(
            f"{type(model).__name__} cannot be used: {doing} its log-probabilities are off by {gap:.2g} nats from its "
            f"own forward pass (more than {bound:.1g}), for its layers mix tokens in a way that is not known here; "
            f"{instead}"
        )


def refuse_moving_positions(config: Any) -> None:
    """InvalidInputError for position frequencies that depend on the longest sequence of a pass (LongRoPE)."""
    text = config.get_text_config()
    tables = getattr(text, "rope_parameters", None) or {}
    for table in (tables, *tables.values()):
        if isinstance(table, dict) and table.get("rope_type") == "longrope":
            border = table.get("original_max_position_embeddings", 0)
            if text.max_position_embeddings > border:
                raise InvalidInputError(
                    f"{text.model_type} with LongRoPE cannot be used: from {border} tokens on, one long sequence "
                    "changes the positions of every other in its pass; choose the model's short-context variant"
                )


def _is_wide(value: object) -> bool:
    return type(value) is int and value > SHORT_WINDOW


def logprobs(model: Any, tokens: Any, **shown: Any) -> Any:
    """log π of every token of a sequence but the first, by the model's own pass; `shown`: its arguments for images."""
    logits = model(input_ids=tokens[None, :-1], use_cache=False, **shown).logits[0].float()
    return logits.log_softmax(-1).gather(-1, tokens[1:, None])[:, 0]
