"""Says how many tokens a row has where the recipe leaves it open: what the card's memory holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol

import torch
from transformers import PreTrainedModel

from perilune.models.memory import CPU_ROW_TOKENS, Load, Shape, auto_row, shape_from_config
from perilune.recipe import TrainerTable
from services.trainer.ranks.group import Ranks


class RowSetting(Protocol):
    """Describes what decides about rows: a recipe's `[trainer]`, or what stages alone have in its place."""

    @property
    def microbatch_tokens(self) -> int | Literal["auto"]:
        """Tokens of a row."""

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Returns what passes compute in."""


def row_tokens(setting: RowSetting, model: PreTrainedModel, ranks: Ranks | None = None) -> int:
    """Tokens of a row, the same on all ranks; a model whose sizes are not known has rows as on a CPU."""
    if setting.microbatch_tokens != "auto":
        return setting.microbatch_tokens
    shape, ranks = shape_from_config(model.config.to_dict()), ranks or Ranks()
    if model.device.type != "cuda" or shape is None:
        return CPU_ROW_TOKENS
    mine = auto_row(load_of(setting, shape), usable_bytes(model.device), ranks.size)
    return min(ranks.gathered(mine))


def load_of(setting: RowSetting, shape: Shape) -> Load:
    """Returns what a trainer has in memory."""
    load = Load(shape, None, trains_in_bf16=setting.precision == "bf16")
    if not isinstance(setting, TrainerTable):
        return load
    return replace(
        load,
        recomputes_layers=setting.activation_checkpointing == "layers",
        has_moments=setting.optimizer == "adamw",
        has_adapter=setting.adapter is not None,
    )


def usable_bytes(device: torch.device) -> int:
    """Memory of a card that this process may have in all: what it holds, and what is free."""
    free, total = torch.cuda.mem_get_info(device)
    limit = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(limit, free + torch.cuda.memory_reserved(device))
