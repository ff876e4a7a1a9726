"""`[trainer]`: the objective, the optimiser and what of a batch they see."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, NonNegativeFloat, PositiveFloat

from perilune.objectives import ObjectiveTable
from perilune.objectives.k15 import K15
from perilune.recipe.model import AdapterTable
from perilune.table import NonNegativeInt, PositiveInt, Share, Table


def _known_segments(value: object) -> object:
    if value == "corrected":
        raise ValueError("write segments = 'all', and trainer.objective.correction = 'decoupled' or another one")
    return value


class TrainerTable(Table):
    """The objective, the optimiser and what of a batch they see."""

    num_iterations: NonNegativeInt  # 0: evaluate the model and end
    objective: ObjectiveTable = K15()
    steps_per_iteration: PositiveInt = 1  # optimiser steps, each on its share of the iteration's groups
    epochs_per_iteration: PositiveInt = 1
    # Which tokens enter the loss: `current`, those at most rollout.max_staleness versions old (k1.5 §2.6.2: only what
    # this iteration wrote); or `all`: no sample may then grow older than that, and its last iteration writes it to
    # the end.
    segments: Annotated[Literal["current", "all"], BeforeValidator(_known_segments)] = "current"
    # Groups whose rewards are all equal carry no preference; leave them out and count them as filtered.
    drop_uniform_groups: bool = False
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-4
    # A ramp from 0 over the first iterations, then constant, or falling to final_learning_rate at the last one.
    learning_rate_warmup_iterations: NonNegativeInt = 0
    final_learning_rate: PositiveFloat | None = None
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    # The paper resets the optimiser when an iteration starts, for its reference has changed (docs/learning.md).
    reset_optimizer: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: passes compute in it; weights and optimiser stay fp32
    adapter: AdapterTable | None = None
    # Of a model that sees: whether its encoder is trained with the rest, or stays as it is (its projector is trained).
    image_encoder: Literal["trained", "frozen"] = "trained"
    # Tokens in one forward and backward pass: sequences packed into a row. `auto`: what the card's memory holds, at
    # most 16,384; on a CPU 2,048.
    microbatch_tokens: PositiveInt | Literal["auto"] = "auto"
    # What is kept for the backward pass: every layer's activations, or each layer's input only, to compute the layer
    # again: a third more work, and rows that are several times as long.
    activation_checkpointing: Literal["none", "layers"] = "none"
    checkpoint_every: PositiveInt = 1  # iterations; what is lost since the last is repeated from the stored batches
    num_threads: PositiveInt | None = None  # torch threads; as many as cores, if not given
