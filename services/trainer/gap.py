"""Says how far an engine's log-probabilities may lie from the trainer's before something is wrong: the metric
`engine_gap`.

Both compute the same policy on the same tokens. Where they do so in float32, only rounding is between them: 4e-5 nats
in `recipes/search.toml`. With half precision, rounded weights, or contexts that an older version read, a rare token may
be off by some tenths. What is beyond is another model: layers computed wrongly, or another run's weights.
"""

from __future__ import annotations

from perilune.recipe import Recipe

EXACT_NATS, ROUNDED_NATS = 0.02, 1.0


def gap_limit(recipe: Recipe) -> float:
    """The largest difference of one token's log-probability, in nats, that is no reason to warn."""
    is_exact = (
        recipe.model.dtype == "float32"
        and recipe.trainer.precision == "fp32"
        and recipe.rollout.engine.is_exact
        and recipe.weights.quantize is None
    )
    return EXACT_NATS if is_exact else ROUNDED_NATS


def gap_warning(recipe: Recipe, metrics: dict[str, float]) -> str:
    """The warning that an iteration's metrics call for; empty if none."""
    gap, limit = metrics.get("engine_gap", 0.0), gap_limit(recipe)
    if gap <= limit:
        return ""
    return (
        f"the engine's log-probabilities are off from the trainer's by up to {gap:.2g} nats (engine_gap; more than "
        f"{limit:g} is a sign that one of them computes this model wrongly, or that they hold different weights): what "
        "is learnt cannot be trusted; try another rollout.engine, or another model"
    )
