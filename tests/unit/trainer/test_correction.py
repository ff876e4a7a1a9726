"""Importance weights by hand, and in a step of the learner."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from perilune.objectives import k15
from perilune.objectives.correction import (
    Spread,
    adaptive_exponent,
    effective_share,
    furthest_kept,
    importance_weights,
    mixing_share,
    spread_of,
)
from services.trainer.batch import TrainingGroup
from services.trainer.learner import Learner
from tests.unit.trainer.models import plain_logprobs, recipe, sample, tiny_policy

# Two sequences: tokens 0 and 1, token 2.
POLICY = torch.log(torch.tensor([0.5, 0.2, 0.9]))
REFERENCE = torch.log(torch.tensor([0.4, 0.4, 0.9]))
BEHAVIOUR = torch.log(torch.tensor([0.1, 0.4, 0.3]))
SEQUENCE = torch.tensor([0, 0, 1])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("truncated", [2.2, 0.5, 2.2]),  # 5, 1/2 and 3, at most 2.2
        ("masked", [0.0, 0.5, 0.0]),
        ("sequence", [2.2, 2.2, 2.2]),  # 5 · 1/2 = 2.5 and 3, at most 2.2
        ("decoupled", [2.2, 1.0, 2.2]),  # 4, 1 and 3
        ("adaptive", [2.0, 1.0, math.sqrt(3)]),  # their square roots, with no limit
        ("ais", [1.9, 1.0, 1.9]),  # 1/4 + 3/4 of 4, 1 and 3, at most 2.2
        ("m2po", [0.0, 0.5, 3.0]),  # log 4 is further than 1.2 nats, log 3 is not
    ],
)
def test_weights_by_hand(kind, expected: list[float]) -> None:
    policy = POLICY.clone().requires_grad_()
    weights = importance_weights(
        kind, policy, REFERENCE, BEHAVIOUR, SEQUENCE, limit=2.2, exponent=0.5, share=0.75, furthest=1.2
    )
    assert weights.tolist() == pytest.approx(expected)
    assert not weights.requires_grad


def test_the_effective_share_is_kishs() -> None:
    assert effective_share(torch.tensor([3.0, 3.0, 3.0])) == pytest.approx(1.0)
    assert effective_share(torch.tensor([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert effective_share(torch.tensor([1.0, 3.0])) == pytest.approx(16 / 20)


def test_the_adaptive_exponent_is_the_largest_that_leaves_enough_tokens_effective() -> None:
    near = torch.tensor([0.01, -0.02, 0.0])
    assert adaptive_exponent(near, 0.9) == 1.0
    far = torch.tensor([0.0, 0.0, 0.0, 3.0])
    exponent = adaptive_exponent(far, 0.8)
    assert effective_share((exponent * far).exp()) >= 0.8
    assert effective_share(((exponent + 1 / 2048) * far).exp()) < 0.8


def test_the_share_of_ais_follows_its_three_diagnostics() -> None:
    spread = spread_of(torch.log(torch.tensor([1.0, 3.0])))
    assert spread == pytest.approx((16 / 20, math.log(3) / 2, 0.5))
    assert mixing_share(spread) == pytest.approx(0.8 * (1 - math.exp(-math.log(3) / 2 / 0.01)) / 1.5)
    assert mixing_share(Spread(1.0, 0.0, 0.0)) == 0
    assert mixing_share(Spread(1.0, 0.01, 0.0)) == pytest.approx(1 - math.exp(-1))
    assert mixing_share(Spread(1.0, 1e9, 0.0)) == 1
    base = Spread(0.9, 0.02, 0.3)
    assert mixing_share(base._replace(divergence=0.03)) > mixing_share(base)
    assert mixing_share(base._replace(effective_share=0.8)) < mixing_share(base)
    assert mixing_share(base._replace(variation=0.4)) < mixing_share(base)


def test_m2po_leaves_out_the_furthest_until_the_rest_is_near() -> None:
    far = torch.tensor([0.1, -0.2, 0.3, -1.0])  # squares 0.01, 0.04, 0.09 and 1; means 0.01, 0.025, 0.0467, 0.285
    assert furthest_kept(far, 0.04) == pytest.approx(0.2)
    assert furthest_kept(far, 0.05) == pytest.approx(0.3)
    assert furthest_kept(far, 1.0) == pytest.approx(1.0)
    assert furthest_kept(far, 1e-9) == pytest.approx(0.1)  # one is kept
    assert furthest_kept(far[:0], 0.04) == math.inf


@pytest.mark.parametrize("kind", ["truncated", "masked", "sequence", "decoupled", "adaptive", "ais", "m2po"])
def test_tokens_of_the_current_policy_need_no_correction(kind: str) -> None:
    """Where the engine's log-probabilities are the policy's own, every weight is 1 and the step is the plain one."""
    rng = np.random.default_rng(0)
    batch = [TrainingGroup("a", [sample(rng, 1.0), sample(rng, 0.0)])]
    policies = [tiny_policy(), tiny_policy()]
    for one in batch[0].samples:
        logprobs = plain_logprobs(policies[0], [one.tokens])[0].numpy()
        object.__setattr__(one, "behaviour_logprobs", np.concatenate([[np.nan], logprobs]).astype(np.float32))
    plain = recipe(optimizer="sgd", learning_rate=0.5)
    corrected = recipe(optimizer="sgd", learning_rate=0.5, objective={"correction": kind})
    Learner(policies[0], plain).train(0, batch)
    metrics = Learner(policies[1], corrected).train(0, batch)
    assert metrics["importance_mean"] == pytest.approx(1.0, abs=1e-4)
    for left, right in zip(policies[0].model.parameters(), policies[1].model.parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-3)


def test_the_gradient_is_that_of_the_weighted_tokens() -> None:
    rng = np.random.default_rng(0)
    group = TrainingGroup("a", [sample(rng, 1.0, 5, 6), sample(rng, 0.0, 5, 9)])
    limited = {"correction": "decoupled", "correction_limit": 1.5}
    policy = tiny_policy()
    ours = [np.exp(-rng.random(len(one.tokens))).astype(np.float32) for one in group.samples]
    expected = copy.deepcopy(policy.model)
    expected.set_attn_implementation("eager")
    loss = torch.zeros(())
    for one, noise, advantage in zip(group.samples, ours, k15.advantages([1, 0], "mean", 0.1), strict=True):
        ids = torch.from_numpy(one.tokens)[None]
        logprobs = torch.log_softmax(expected(ids, use_cache=False).logits[0, :-1], -1).gather(-1, ids[0, 1:, None])
        behaviour = logprobs[:, 0].detach().numpy() + np.log(noise[1:])
        object.__setattr__(one, "behaviour_logprobs", np.concatenate([[np.nan], behaviour]).astype(np.float32))
        weights = torch.from_numpy(1 / noise[1:]).clamp_max(1.5) * torch.from_numpy(one.in_loss[1:])
        loss = loss - advantage * (weights * logprobs[:, 0]).sum() / 2
    loss.backward()
    table = recipe(optimizer="sgd", learning_rate=0.5, max_grad_norm=1e9, objective=limited)
    Learner(policy, table).train(0, [group])
    stepped = dict(policy.model.named_parameters())
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(stepped[name], parameter - 0.5 * parameter.grad, atol=1e-6, rtol=1e-4)
