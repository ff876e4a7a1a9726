"""Says what runs before and after reinforcement learning, by the recipe's `[[stages]]`.

A stage is a file, its keys in `perilune.recipe` and a row here. `runner` takes its steps, keeps its progress
(`progress`) and reports; `stage` is what it asks of one; `supervised` is what both of today's share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perilune.recipe import DpoStage, SftStage, StageTable, WarmupStage
from services.trainer.policy.model import Policy
from services.trainer.stages.dpo import Dpo
from services.trainer.stages.sft import Sft
from services.trainer.stages.stage import Setting, Stage
from services.trainer.stages.warmup import Warmup

STAGES: dict[type, Callable[[Any, Policy, Setting], Stage]] = {
    WarmupStage: Warmup,
    SftStage: Sft,
    DpoStage: Dpo,
}


def make_stage(table: StageTable, policy: Policy, recipe: Setting) -> Stage:
    """Makes a recipe's stage over the policy that it trains."""
    return STAGES[type(table)](table, policy, recipe)
