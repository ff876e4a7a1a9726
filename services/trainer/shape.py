"""Says what a recipe computes with, from its keys and its model's small files. Needs no torch."""

from __future__ import annotations

from perilune.models.memory import Load, Shape, shape_from_config
from perilune.recipe import CreateModel, Recipe
from perilune.tasks import find_task
from services.trainer.preflight import config_of_path

NUM_SPECIAL_TOKENS = 4  # of a vocabulary that is made on the spot


def load_of(recipe: Recipe) -> Load | None:
    """The run's load; None where the model's files do not say its sizes. NotFoundError if there is no such model."""
    if (shape := _shape_of(recipe)) is None:
        return None
    row = recipe.trainer.microbatch_tokens
    return Load(
        shape,
        row_tokens=None if row == "auto" else row,
        recomputes_layers=recipe.trainer.activation_checkpointing == "layers",
        trains_in_bf16=recipe.trainer.precision == "bf16",
        samples_in_bf16=recipe.model.dtype == "bfloat16",
        has_moments=recipe.trainer.optimizer == "adamw",
        has_adapter=recipe.trainer.adapter is not None,
        max_running=recipe.rollout.max_running,
    )


def _shape_of(recipe: Recipe) -> Shape | None:
    if recipe.model.create is not None:
        return _shape_of_created(recipe.model.create)
    assert recipe.model.path is not None  # the recipe's check: one of both
    return shape_from_config(config_of_path(recipe.model.path))


def _shape_of_created(table: CreateModel) -> Shape:
    return Shape(
        num_layers=table.num_layers,
        hidden_size=table.hidden_size,
        intermediate_size=table.intermediate_size,
        vocabulary_size=len(find_task(table.task).VOCABULARY) + NUM_SPECIAL_TOKENS,
        num_heads=table.num_heads,
        num_kv_heads=table.num_kv_heads or table.num_heads,
        head_size=table.hidden_size // table.num_heads,
        max_context=table.max_positions,
    )
