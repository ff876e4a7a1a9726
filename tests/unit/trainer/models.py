"""Tiny real models and batches for the trainer's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from perilune.recipe import CreateModel, Recipe, check_recipe
from services.trainer.batch import TrainingGroup, TrainingSample
from services.trainer.policy.created import create_policy
from services.trainer.policy.model import Policy

torch.set_num_threads(1)

TINY = {
    "task": "search",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
}


def recipe(
    model: dict[str, Any] | None = None,
    stages: Sequence[dict[str, Any]] = (),
    rollout: dict[str, Any] | None = None,
    **trainer: Any,
) -> Recipe:
    return check_recipe(
        {
            "name": "tiny",
            "model": model or {"create": TINY},
            "prompts": {"source": "task", "name": "search"},
            "reward": {"graders": [{"name": "pair"}]},
            "rollout": rollout or {},
            "trainer": {"num_iterations": 4, **trainer},
        }
        | {"stages": list(stages)}
        | ({"teacher": {"model": "elsewhere"}} if trainer.get("objective", {}).get("type") == "distill" else {})
    )


def tiny_policy(seed: int = 0, **changes: Any) -> Policy:
    return create_policy(CreateModel.model_validate(TINY | changes), seed)


def sample(
    rng: np.random.Generator, score: float, num_prompt: int = 5, num_response: int | None = None
) -> TrainingSample:
    num_response = num_response or int(rng.integers(3, 40))
    tokens = rng.integers(3, 40, num_prompt + num_response)
    return TrainingSample(
        id="s",
        tokens=tokens,
        in_loss=np.arange(len(tokens)) >= num_prompt,
        current_logprobs=np.full(len(tokens), np.nan, np.float32),
        score=score,
        correct=score >= 1,
    )


def groups(seed: int, num_groups: int = 4, size: int = 4) -> list[TrainingGroup]:
    rng = np.random.default_rng(seed)
    return [
        TrainingGroup(f"g{number}", [sample(rng, float(rng.random() < 0.5)) for _ in range(size)])
        for number in range(num_groups)
    ]


def state(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def plain_logprobs(policy: Policy, sequences: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """log-probs of every token but the first, one sequence a forward pass, by Hugging Face's own attention."""
    policy.model.set_attn_implementation("eager")
    out = []
    for tokens in sequences:
        ids = torch.from_numpy(tokens)[None]
        with torch.no_grad():
            logits = policy.model(ids, use_cache=False).logits[0, :-1]
        out.append(torch.log_softmax(logits.float(), -1).gather(-1, ids[0, 1:, None])[:, 0])
    policy.model.set_attn_implementation("perilune_packed")
    return out
