"""A golden run: the default recipe made small, in one process, at a seed. What it learns stays what it was.

`python -m tests.unit.trainer.test_golden` writes the record anew, for a change that is meant to change results.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perilune.models.chat import prompt_ids
from perilune.recipe import Recipe, load_recipe
from perilune.tasks import search
from services.trainer.batch import TrainingGroup, TrainingSample
from services.trainer.learner import Learner
from services.trainer.policy.model import Policy
from services.trainer.policy.sources import make_policy
from services.trainer.stages.runner import run_stages
from services.trainer.versions.snapshot import snapshot
from tests.unit.trainer.models import plain_logprobs

RECORD = Path("tests/cases/trainer/golden.json")
NUM_ITERATIONS, NUM_GROUPS, GROUP_SIZE = 3, 8, 4
SMALL = (
    "model.create.hidden_size=32",
    "model.create.intermediate_size=48",
    "model.create.num_layers=2",
    "stages.0.num_steps=150",
    "stages.0.learning_rate=5e-3",
    "stages.0.options.num_numbers=2",
    "rollout.max_tokens=40",
    "trainer.num_iterations=3",
    "trainer.steps_per_iteration=2",
    "trainer.learning_rate=1e-3",
)


def golden_run(recipe: Recipe) -> dict[str, Any]:
    """A warm-up and three iterations: each one's loss and mean length, and the digests of versions 0 to 3."""
    torch.set_num_threads(1)
    policy = make_policy(recipe)
    run_stages(recipe.stages_at("before"), policy, recipe)
    learner, random = Learner(policy, recipe), torch.Generator().manual_seed(recipe.seed)
    found: dict[str, Any] = {"losses": [], "lengths": [], "digests": [_digest(policy, 0)]}
    for iteration in range(NUM_ITERATIONS):
        batch = _sampled(policy, recipe, iteration, random)
        metrics = learner.train(iteration, batch)
        found["losses"].append(metrics["loss"])
        found["lengths"].append(metrics["mean_tokens"])
        found["digests"].append(_digest(policy, iteration + 1))
    return found


def _digest(policy: Policy, number: int) -> str:
    return snapshot(policy, number, torch.float32, None, None).policy.digest


def _sampled(policy: Policy, recipe: Recipe, iteration: int, random: torch.Generator) -> list[TrainingGroup]:
    """Responses to an iteration's problems, graded, each token with the log-probability that it was drawn with."""
    problems = [
        search.problem(recipe.seed, NUM_GROUPS * iteration + number, num_numbers=2) for number in range(NUM_GROUPS)
    ]
    prompts = [prompt_ids(policy.tokenizer, [{"role": "user", "content": search.question(p)}]) for p in problems]
    tokens_BT = torch.tensor(prompts).repeat_interleave(GROUP_SIZE, 0)
    samples = [
        _sample(policy, tokens, len(prompts[0]), problems[place // GROUP_SIZE].answer)
        for place, tokens in enumerate(_drawn(policy, tokens_BT, recipe.rollout.max_tokens, random).numpy())
    ]
    return [
        TrainingGroup(f"{iteration}-{n}", samples[n * GROUP_SIZE : (n + 1) * GROUP_SIZE]) for n in range(NUM_GROUPS)
    ]  # fmt: skip


@torch.no_grad()
def _drawn(policy: Policy, tokens_BT: torch.Tensor, max_tokens: int, random: torch.Generator) -> torch.Tensor:
    policy.model.set_attn_implementation("eager")
    for _ in range(max_tokens):
        probabilities_BV = policy.model(tokens_BT, use_cache=False).logits[:, -1].softmax(-1)
        tokens_BT = torch.cat([tokens_BT, probabilities_BV.multinomial(1, generator=random)], 1)
    policy.model.set_attn_implementation("perilune_packed")
    return tokens_BT


def _sample(policy: Policy, tokens: np.ndarray, num_prompt: int, answer: str) -> TrainingSample:
    response: Sequence[int] = tokens[num_prompt:].tolist()
    length = response.index(policy.eos_token_id) + 1 if policy.eos_token_id in response else len(response)
    tokens = tokens[: num_prompt + length]
    text = policy.tokenizer.decode(response[:length], skip_special_tokens=True)
    right = sorted(text.rpartition("answer:")[2].split()) == sorted(answer.split())
    logprobs = np.concatenate([[np.nan], plain_logprobs(policy, [tokens])[0].numpy()]).astype(np.float32)
    return TrainingSample("s", tokens, np.arange(len(tokens)) >= num_prompt, logprobs, float(right), right, logprobs)


def this_platform() -> str:
    """What decides the last bits of floats."""
    cpus = (
        re.findall(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text()) if platform.system() == "Linux" else []
    )
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {platform.machine()}, {capability}, {cpus[0] if cpus else 'unknown'}"


def default_recipe() -> Recipe:
    return load_recipe("recipes/search.toml", SMALL)


@pytest.mark.slow
def test_the_default_recipe_gives_what_it_gave() -> None:
    recorded, found = json.loads(RECORD.read_text()), golden_run(default_recipe())
    assert found["losses"] == pytest.approx(recorded["losses"], abs=1e-5)
    assert found["lengths"] == recorded["lengths"]
    if this_platform() == recorded["platform"]:
        assert found["digests"] == recorded["digests"]


if __name__ == "__main__":
    RECORD.write_text(json.dumps({"platform": this_platform(), **golden_run(default_recipe())}, indent=2) + "\n")
