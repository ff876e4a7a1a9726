"""The examples run as they stand, and do what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples import one_iteration as example
from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from services.trainer.policy.logprobs import sequence_logprobs, token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_rows
from services.trainer.policy.sources import make_policy


def test_one_iteration_says_what_each_step_made(capsys: pytest.CaptureFixture[str]) -> None:
    example.main(["--warmup-steps", "2", "--prompts", "2", "--group-size", "3", "--heldout", "2"])
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == ["policy", "warm-up", "prompts", "responses", "rewards", "advantages", "step", "held out"]
    assert lines["responses"].strip().startswith("6;")
    assert lines["advantages"].strip().endswith("of 6 are not zero")
    assert "version 0 → 1" in lines["step"]


def test_its_step_makes_what_was_rewarded_likelier_and_the_rest_less_likely() -> None:
    recipe = example.recipe_of(warmup_steps=1, seed=0)
    policy = make_policy(recipe)
    scored = [scored_text(policy, "3 4 yes", reward=1.0), scored_text(policy, "none none none", reward=0.0)]
    advantages = example.advantages_of(scored, group_size=2)
    assert advantages == [0.5, -0.5]
    before = logprobs(policy, scored)
    example.take_step(policy, scored, advantages, recipe)
    after = logprobs(policy, scored)
    assert after[0] > before[0]
    assert after[1] < before[1]


def scored_text(policy: Policy, text: str, reward: float) -> example.Scored:
    prompt = policy.tokenizer("<bos> which two of 3 4 5 make 7 ?", add_special_tokens=False)["input_ids"]
    response = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    return example.Scored(Prompt(), text, np.array(prompt + response), len(prompt), reward)


@torch.no_grad()
def logprobs(policy: Policy, scored: list[example.Scored]) -> list[float]:
    """log π(response | prompt) of each, in nats."""
    found = [0.0] * len(scored)
    is_response = [np.arange(len(each.tokens)) >= each.num_prompt_tokens for each in scored]
    for row in pack_rows([each.tokens for each in scored], is_response, 2048):
        for index, value in zip(row.indices, sequence_logprobs(token_logprobs(policy.model, row), row), strict=True):
            found[index] = float(value)
    return found
