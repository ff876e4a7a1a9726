"""An adapter as a version, and as files that peft loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.models.packages import PACKAGE_PREFIX
from perilune.models.tensors import raw_tensor
from perilune.recipe import AdapterTable, Recipe
from perilune.weights import RawTensor, State
from perilune.weights.adapted import BASE_DIGEST, CONFIG_FILE
from services.trainer.policy.adapter import factors
from services.trainer.versions.snapshot import PublishedVersion


def adapter_snapshot(model: nn.Module, number: int, base: PolicyVersion, config: bytes) -> PublishedVersion:
    """A version of the adapter: a copy that training does not reach. It is sent whole; nearly all of it changes."""
    digest = memoryview(bytearray.fromhex(base.digest))
    tensors = [raw_tensor(name, tensor.float().clone()) for name, tensor in factors(model).items()]
    tensors.append(RawTensor(BASE_DIGEST, trajectory.DTYPE_UINT8, (len(digest),), digest))
    return PublishedVersion(State.of(number, tensors), None, {CONFIG_FILE: config})


def base_path(recipe: Recipe, first: Path) -> str:
    """Returns where PEFT finds what the adapter changes: the recipe's model, or the checkpoint of version 0 where
    that is not the same (stages came before, or it was made on the spot) or PEFT knows no such name."""
    path = recipe.model.path
    if path is None or recipe.stages_at("before") or path.startswith(PACKAGE_PREFIX):
        return str(first.resolve())
    return path


def peft_config(table: AdapterTable, base_path: str) -> bytes:
    """PEFT's adapter_config.json."""
    document: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_path,
        "r": table.rank,
        "lora_alpha": table.alpha,
        "target_modules": sorted(table.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    return (json.dumps(document, indent=2) + "\n").encode()
