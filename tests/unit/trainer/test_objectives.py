"""Objectives behind the seam: GRPO and RLOO by hand, and what holds for every row of the table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from perilune.recipe import GrpoTable, K15Table, RlooTable
from services.trainer.batch import Group
from services.trainer.learner import Learner
from services.trainer.objectives import OBJECTIVES, make_objective
from services.trainer.objectives.grpo import Grpo, normalized
from services.trainer.objectives.k15 import K15
from services.trainer.objectives.objective import LossRow
from services.trainer.objectives.rloo import Rloo, left_one_out
from tests.unit.trainer.models import groups, plain_logprobs, recipe, same_bits, sample, state, tiny_policy

KINDS = [{"type": "k15"}, {"type": "k15", "baseline": "log_z"}, {"type": "grpo"}, {"type": "rloo"}]

# Two sequences of weights 1/2 and 1/4: tokens 0 and 1 have ratios 1.5 and 0.5 to the reference, token 2 has 1.1.
REFERENCE = torch.log(torch.tensor([0.4, 0.4, 0.8]))
POLICY = torch.log(torch.tensor([0.6, 0.2, 0.88]))


def row(policy_S: torch.Tensor, advantage_n: list[float]) -> LossRow:
    sequence_S = torch.tensor([0, 0, 1])
    weights = torch.tensor([0.5, 0.25])
    return LossRow(policy_S, REFERENCE, None, torch.tensor(advantage_n)[sequence_S], sequence_S, weights)


def test_a_row_is_summed_and_averaged_by_sequence() -> None:
    one = row(POLICY, [2.0, -1.0])
    assert one.sums(torch.tensor([1.0, 2.0, 5.0])).tolist() == [3.0, 5.0]
    assert one.means(torch.tensor([1.0, 2.0, 5.0])).tolist() == [1.5, 5.0]
    assert one.of_sequences(one.advantage_S).tolist() == [2.0, -1.0]


def test_k15_sums_each_sequence() -> None:
    first, second = math.log(1.5 * 0.5), math.log(1.1)
    expected = 0.5 * (-2 * first + 0.05 * first**2) + 0.25 * (second + 0.05 * second**2)
    assert K15(K15Table(tau=0.1)).loss(row(POLICY, [2.0, -1.0])).total.item() == pytest.approx(expected, rel=1e-5)


def test_grpo_clips_token_by_token() -> None:
    policy_S = POLICY.clone().requires_grad_()
    total, observed = Grpo(GrpoTable(type="grpo", clip=0.2)).loss(row(policy_S, [2.0, -1.0]))
    # -(mean of min(1.5·2, 1.2·2) and min(0.5·2, 0.8·2)) / 2 - (1.1·-1) / 4
    assert total.item() == pytest.approx(-0.5 * (2.4 + 1.0) / 2 + 0.25 * 1.1, rel=1e-5)
    assert observed["clipped"].tolist() == [1.0, 0.0, 0.0]
    total.backward()
    # Clipped; d/dlogπ of -(1/2)(1/2)·w·2 at w = 0.5; of (1/4)·w at w = 1.1.
    assert policy_S.grad is not None
    assert policy_S.grad.tolist() == pytest.approx([0.0, -0.25, 0.275], rel=1e-5)


def test_grpo_clips_a_negative_advantage_from_below() -> None:
    _, observed = Grpo(GrpoTable(type="grpo", clip=0.2)).loss(row(POLICY, [-1.0, 1.0]))
    assert observed["clipped"].tolist() == [0.0, 1.0, 0.0]  # at 0.5, below 0.8; 1.1 is within
    assert Grpo(GrpoTable(type="grpo")).metrics(observed) == {"clipped": pytest.approx(1 / 3)}


def test_the_upper_clip_may_be_another_one() -> None:
    higher = Grpo(GrpoTable(type="grpo", clip=0.2, clip_high=0.4)).loss(row(POLICY, [2.0, -1.0]))
    assert higher.total.item() == pytest.approx(-0.5 * (2.8 + 1.0) / 2 + 0.25 * 1.1, rel=1e-5)


def test_rloo_is_the_weighted_log_probability() -> None:
    policy_S = POLICY.clone().requires_grad_()
    total, _ = Rloo(RlooTable(type="rloo")).loss(row(policy_S, [2.0, -1.0]))
    assert total.item() == pytest.approx(-0.5 * 2 * math.log(0.6 * 0.2) + 0.25 * math.log(0.88), rel=1e-5)
    total.backward()
    assert policy_S.grad is not None
    assert policy_S.grad.tolist() == pytest.approx([-1.0, -1.0, 0.25])


def test_advantages_by_hand() -> None:
    assert normalized([1.0, 0.0, 0.0, 1.0]) == pytest.approx([1, -1, -1, 1], abs=1e-5)
    assert normalized([3.0, 0.0, 0.0]) == pytest.approx([math.sqrt(2), -math.sqrt(0.5), -math.sqrt(0.5)], abs=1e-5)
    assert left_one_out([1.0, 0.0, 0.0, 0.5]) == pytest.approx([1 - 0.5 / 3, -0.5, -0.5, 0.5 - 1 / 3])


def test_rewards_that_differ_by_rounding_prefer_nothing() -> None:
    assert normalized([0.1 + 0.2, 0.3]) == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_uniform_group_has_no_advantage_to_the_last_bit(kind: dict[str, Any]) -> None:
    """By which the master leaves such groups out, whatever the objective."""
    objective = make_objective(recipe(objective=kind).trainer.objective)
    for rewards in ([0.1] * 3, [-0.7] * 7, [1.3]):
        advantages = objective.advantages(rewards, list(range(len(rewards))))
        assert [part.tolist() for part in advantages] == [[0.0] * count for count in range(len(rewards))]


def test_every_kind_of_the_table_is_tested() -> None:
    assert {type(recipe(objective=kind).trainer.objective) for kind in KINDS} == set(OBJECTIVES)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_result_does_not_depend_on_how_the_batch_is_cut(kind: dict[str, Any]) -> None:
    results = []
    for microbatch_tokens in (30, 100_000):
        policy = tiny_policy()
        table = recipe(
            optimizer="sgd", learning_rate=0.1, steps_per_iteration=2, epochs_per_iteration=2, objective=kind,
            microbatch_tokens=microbatch_tokens,
        )  # fmt: skip
        metrics = Learner(policy, table).train(0, groups(1))
        results.append((state(policy), metrics["loss"], metrics["entropy"]))
    torch.testing.assert_close(results[1], results[0], atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rewarded_responses_become_likelier(kind: dict[str, Any]) -> None:
    policy, batch = tiny_policy(), groups(2)

    def preference() -> float:
        """How much likelier the right responses are than the wrong ones, nats a token."""
        means: dict[float, list[float]] = {0.0: [], 1.0: []}
        for one in [each for group in batch for each in group.samples]:
            (logprobs,) = plain_logprobs(policy, [one.tokens])
            means[one.score].append(logprobs[torch.from_numpy(one.in_loss[1:])].mean().item())
        return float(np.mean(means[1.0]) - np.mean(means[0.0]))

    before = preference()
    learner = Learner(policy, recipe(learning_rate=1e-3, num_iterations=5, steps_per_iteration=2, objective=kind))
    metrics = [learner.train(iteration, batch) for iteration in range(5)]
    assert preference() > before + 0.05
    assert all(math.isfinite(value) for each in metrics for value in each.values())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_engine_is_compared_with_the_policy_that_opens_the_iteration_alone(kind: dict[str, Any]) -> None:
    policy, batch = tiny_policy(), groups(2)
    for one in [each for group in batch for each in group.samples]:
        one.engine_logprobs[1:] = plain_logprobs(policy, [one.tokens])[0]
    table = recipe(learning_rate=0.1, steps_per_iteration=2, epochs_per_iteration=2, objective=kind)
    metrics = Learner(policy, table).train(0, batch)
    assert metrics["engine_gap"] < 1e-4
    assert ("kl" in metrics) == (kind["type"] != "rloo")  # which has no reference to be far from


def test_grpo_and_rloo_step_nowhere_for_a_uniform_group() -> None:
    rng = np.random.default_rng(0)
    uniform = [Group("u", [sample(rng, 1.0) for _ in range(4)])]
    for kind in ({"type": "grpo"}, {"type": "rloo"}):
        policy = tiny_policy()
        before = state(policy)
        Learner(policy, recipe(optimizer="sgd", learning_rate=0.5, objective=kind)).train(0, uniform)
        assert same_bits(before, state(policy))
