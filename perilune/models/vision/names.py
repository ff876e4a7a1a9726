"""The names of a model's tensors in files, where transformers has others in memory: vLLM reads those of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from perilune.models.files import blank_model


def save_as_published(model: Any) -> None:
    """Has a model that was made on the spot saved under the names that published ones of its kind have."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    model._weight_conversions = get_model_conversion_mapping(model, add_legacy=False)


def names_in_files(model_files: Mapping[str, bytes]) -> dict[str, str]:
    """The name in files of each tensor, by that in memory. Tensors that are not stored as they are have none."""
    from transformers.core_model_loading import revert_weight_conversion

    model: Any = blank_model(model_files, torch.float32, "meta")
    save_as_published(model)
    marks = {name: torch.empty(1) for name in model.state_dict()}
    stored: Mapping[str, Any] = revert_weight_conversion(model, dict(marks))
    by_mark = {id(mark): name for name, mark in marks.items()}
    return {by_mark[id(mark)]: name for name, mark in stored.items() if id(mark) in by_mark}
