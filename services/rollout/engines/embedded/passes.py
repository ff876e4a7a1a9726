"""One forward pass of a Hugging Face model over one packed row of tokens, with attention of ours in every layer.

The row holds the tokens of a step: first what is read of prompts, then one token of every running sample. How a token
finds the keys and values before it is the pass's own affair: `slots` and `paged` each have theirs.

Shapes: N packed tokens, H query heads, G key-value heads, D head size, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from perilune.errors import InvalidInputError
from perilune.models.vision.embedding import put
from services.rollout.engines.embedded.sight import Vectors

ATTENTION = "perilune_cached"


class Pass(Protocol):
    """The plan of one forward pass: which token attends to what."""

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        window: int | None,
        sinks_H: Tensor | None,
    ) -> Tensor:
        """Stores the tokens' keys and values, (1, G, N, D), and returns what they attend to, (N, H, D)."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    plan: Pass,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Attention of one layer over one packed row. See transformers.AttentionInterface.

    Args:
        query: [1, H, N, D]; key and value: [1, G, N, D]; positions are already in them.
        plan: passed to the model's forward, and by it to every layer.
        s_aux: [H], attention sinks: a score beside those of the keys, which takes its share and gives nothing.

    Returns:
        [1, N, H, D], and no attention weights.
    """
    for name in ("softcap", "position_bias"):
        if others.get(name) is not None:
            raise InvalidInputError(f"the torch engine has no attention with {name}; use another engine for this model")
    attended = plan.attend(module.layer_idx, query, key, value, scaling, sliding_window, s_aux)  # type: ignore[arg-type]
    return attended[None], None


def forward(
    model: Any,
    plan: Pass,
    tokens_1N: Tensor,
    positions_1N: Tensor,
    num_last: int,
    vectors: Vectors | None = None,
) -> Tensor:
    """Logits of the last tokens of a packed row, (num_last, V), float32.

    Args:
        model: set to ATTENTION.
        plan: of this pass.
        tokens_1N: where the model is.
        positions_1N: of each token in its own sample; or in time, height and width, (3, 1, N).
        num_last: at least 1.
        vectors: that take the place of tokens' embeddings.
    """
    shown = {"input_ids": tokens_1N} if vectors is None else {"inputs_embeds": put(model, tokens_1N[0], *vectors)}
    logits: Tensor = model(
        **shown, position_ids=positions_1N, use_cache=False, logits_to_keep=num_last, plan=plan
    ).logits[0]
    return logits.float()
