"""Every tensor says where it is: with another device as torch's default, CPU models compute what they always do.

On a card the model is elsewhere than torch's default. Here the default is elsewhere than the model: a tensor that is
made without a device lands on "meta", which has no values, and meets the others in an error.
"""

from __future__ import annotations

import pytest
import torch

from perilune.grading.labelled_answers import LabelledAnswer
from perilune.recipe import AdapterTable
from services.rollout.engines import sampling
from services.rollout.engines.embedded.model import build_model
from services.rollout.engines.embedded.slots import Slots
from services.rollout.engines.probe import check_decoding
from services.trainer.learner import Learner
from services.trainer.policy.adapter import adapt
from services.trainer.policy.sources import hollow_policy
from services.trainer.reward_models.classic import RewardModel
from services.trainer.reward_models.plan import Plan
from services.trainer.reward_models.training import train_classic
from services.trainer.versions.snapshot import raw_tensors
from tests.unit.trainer import models


@pytest.mark.parametrize("objective", ["k15", "grpo", "rloo"])
def test_an_iteration_of_the_trainer(objective: str) -> None:
    recipe = models.recipe(objective={"type": objective}, steps_per_iteration=2, microbatch_tokens=64)
    metrics, weights = [], []
    for elsewhere in ("cpu", "meta"):
        policy, groups = models.tiny_policy(), models.groups(0)
        with torch.device(elsewhere):
            metrics.append(Learner(policy, recipe).train(0, groups))
        weights.append(torch.cat([tensor.flatten() for tensor in policy.model.parameters()]))
    assert torch.equal(*weights)
    assert metrics[0]["loss"] == metrics[1]["loss"]


def test_an_adapter_is_the_same_wherever_the_model_is() -> None:
    table = AdapterTable(rank=2, targets=["q_proj"])
    policies = []
    for elsewhere in ("cpu", "meta"):
        policies.append(models.tiny_policy())
        with torch.device(elsewhere):
            adapt(policies[-1].model, table, seed=3)
    one, other = (dict(policy.model.named_parameters()) for policy in policies)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_policy_without_weights_is_made_where_it_is_asked_for() -> None:
    with torch.device("meta"):
        policy = hollow_policy(models.tiny_policy().model_files)
    assert {tensor.device.type for tensor in policy.model.parameters()} == {"cpu"}


def test_the_engines_passes_and_its_sampler() -> None:
    policy = models.tiny_policy()
    tensors = raw_tensors(policy.model, torch.float32)
    with torch.device("meta"):
        model = build_model(policy.model_files, tensors, "cpu")
        check_decoding(model)
        slots = Slots(4, 256, model.device)
    logits = torch.randn(3, 2000, generator=torch.Generator().manual_seed(1))
    uniform = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    arguments = (torch.tensor([1.0, 0.7, 0.0]), torch.tensor([1.0, 0.9, 1.0]), torch.tensor([0, 5, 0]), uniform)
    expected = sampling.draw(logits.clone(), *arguments)
    with torch.device("meta"):
        slots.reserve(2, 8)
        slots.layer(0, torch.ones(1, 2, 1, 4, device="cpu"), torch.ones(1, 2, 1, 4, device="cpu"))
        slots.copy([(0, 1)], 8)
        drawn = sampling.draw(logits.clone(), *arguments)
    assert all(torch.equal(*pair) for pair in zip(expected, drawn, strict=True))


def test_a_reward_model_learns_and_answers() -> None:
    rows = [
        LabelledAnswer(question="1 + 1", reference="2", response=answer, correct=answer == "2") for answer in "1223"
    ]
    policy = models.tiny_policy()
    losses: list[float] = []
    with torch.device("meta"):
        model = RewardModel(policy, 64)
        train_classic(model, rows, Plan(num_passes=1, batch_size=2), lambda _, loss: losses.append(loss))
        (value,) = model.probabilities([("1 + 1", "2", "2")])
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)  # log 2: every answer is as likely right as wrong
    assert 0 < value < 1
