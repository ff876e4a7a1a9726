"""Objectives behind the seam: GRPO and RLOO by hand, and what holds for every row of the table."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from perilune.errors import InvalidInputError, RecipeError
from perilune.objectives import ObjectiveTable
from perilune.objectives.grpo import Grpo, normalized
from perilune.objectives.k15 import K15
from perilune.objectives.kl import KlEstimator, kl_estimate
from perilune.objectives.objective import LossRow
from perilune.objectives.rloo import Rloo, left_one_out
from services.trainer.batch import TrainingGroup
from services.trainer.learner import Learner
from services.trainer.policy.adapter import adapt
from services.trainer.policy.model import Policy
from tests.unit.trainer.models import groups, plain_logprobs, recipe, same_bits, sample, state, tiny_policy

KINDS = [
    {"type": "k15"},
    {"type": "k15", "baseline": "log_z"},
    {"type": "grpo"},
    {"type": "grpo", "kl_weight": 0.1},
    {"type": "reinforce"},
    {"type": "rloo"},
    {"type": "dr_grpo"},
    {"type": "dapo"},
    {"type": "ppo", "dual_clip": 3.0},
    {"type": "gspo"},
    {"type": "cispo"},
    {"type": "dppo"},
    {"type": "rest"},
    {"type": "sft"},
    {"type": "distill", "reward_weight": 5.0},
]
WITHOUT_REFERENCE = {"reinforce", "rloo", "dppo", "rest", "sft", "distill"}
LIKELIHOOD = {"rest", "sft"}  # which have something to fit in a group of right responses alone

# Two sequences of weights 1/2 and 1/4: tokens 0 and 1 have ratios 1.5 and 0.5 to the reference, token 2 has 1.1.
REFERENCE = torch.log(torch.tensor([0.4, 0.4, 0.8]))
POLICY = torch.log(torch.tensor([0.6, 0.2, 0.88]))


def drawn_by(policy: Policy, batch: list[TrainingGroup]) -> list[TrainingGroup]:
    """The groups, each token with the policy's own log-probability as what it was drawn with, and as the teacher's."""
    for one in [each for group in batch for each in group.samples]:
        logprobs = plain_logprobs(policy, [one.tokens])[0].numpy()
        drawn_with = np.concatenate([[np.nan], logprobs]).astype(np.float32)
        for name in ("behaviour_logprobs", "teacher_logprobs"):  # a teacher that is the policy itself
            object.__setattr__(one, name, drawn_with)
        object.__setattr__(one, "teacher_kl", np.zeros_like(drawn_with))
    return batch


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
    assert K15(tau=0.1).loss(row(POLICY, [2.0, -1.0])).total.item() == pytest.approx(expected, rel=1e-5)


def test_grpo_clips_token_by_token() -> None:
    policy_S = POLICY.clone().requires_grad_()
    total, observed = Grpo(type="grpo", clip=0.2).loss(row(policy_S, [2.0, -1.0]))
    # -(mean of min(1.5·2, 1.2·2) and min(0.5·2, 0.8·2)) / 2 - (1.1·-1) / 4
    assert total.item() == pytest.approx(-0.5 * (2.4 + 1.0) / 2 + 0.25 * 1.1, rel=1e-5)
    assert observed["clipped"].tolist() == [1.0, 0.0, 0.0]
    total.backward()
    # Clipped; d/dlogπ of -(1/2)(1/2)·w·2 at w = 0.5; of (1/4)·w at w = 1.1.
    assert policy_S.grad is not None
    assert policy_S.grad.tolist() == pytest.approx([0.0, -0.25, 0.275], rel=1e-5)


def test_grpo_clips_a_negative_advantage_from_below() -> None:
    _, observed = Grpo(type="grpo", clip=0.2).loss(row(POLICY, [-1.0, 1.0]))
    assert observed["clipped"].tolist() == [0.0, 1.0, 0.0]  # at 0.5, below 0.8; 1.1 is within
    assert Grpo(type="grpo").metrics(observed) == {"clipped": pytest.approx(1 / 3)}


def test_the_upper_clip_may_be_another_one() -> None:
    higher = Grpo(type="grpo", clip=0.2, clip_high=0.4).loss(row(POLICY, [2.0, -1.0]))
    assert higher.total.item() == pytest.approx(-0.5 * (2.8 + 1.0) / 2 + 0.25 * 1.1, rel=1e-5)


# d = log π_θ - log π_ref is log 2, log 1/2 and 0: k1 is d, k2 is d²/2, k3 is exp(-d) - 1 + d.
FROZEN = torch.log(torch.tensor([0.3, 0.4, 0.88]))
LOG_2 = math.log(2)
ESTIMATES = {
    "k1": [LOG_2, -LOG_2, 0.0],
    "k2": [LOG_2**2 / 2, LOG_2**2 / 2, 0.0],
    "k3": [LOG_2 - 0.5, 1 - LOG_2, 0.0],
}


@pytest.mark.parametrize("kind", ESTIMATES)
def test_kl_by_hand(kind: KlEstimator) -> None:
    assert kl_estimate(kind, POLICY, FROZEN).tolist() == pytest.approx(ESTIMATES[kind], abs=1e-6)
    objective = Grpo(type="grpo", clip=0.2, kl_weight=0.3, kl_estimator=kind)
    assert objective.needs == {"iteration", "frozen"}
    total, observed = objective.loss(replace(row(POLICY, [2.0, -1.0]), frozen_S=FROZEN))
    without = -0.5 * (2.4 + 1.0) / 2 + 0.25 * 1.1
    first, second, third = ESTIMATES[kind]
    penalty = 0.3 * (0.5 * (first + second) / 2 + 0.25 * third)
    assert total.item() == pytest.approx(without + penalty, rel=1e-5)
    assert objective.metrics(observed) == {
        "clipped": pytest.approx(1 / 3),
        "frozen_kl": pytest.approx((first + second + third) / 3, rel=1e-5),
    }


@pytest.mark.parametrize("kind", ESTIMATES)
def test_the_gradient_with_a_penalty_is_the_slope_of_the_loss(kind: KlEstimator) -> None:
    """Central differences in double precision, away from the clip's edges."""
    objective = Grpo(type="grpo", clip=0.2, kl_weight=0.3, kl_estimator=kind)

    def loss(policy_S: torch.Tensor) -> torch.Tensor:
        doubled = {name: value.double() for name, value in vars(row(POLICY, [2.0, -1.0])).items() if name in FLOATS}
        return objective.loss(replace(row(policy_S, [0.0, 0.0]), **doubled | {"policy_S": policy_S})).total

    assert torch.autograd.gradcheck(loss, POLICY.double().requires_grad_())


FLOATS = {"reference_S", "advantage_S", "weight_n"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("k1", [0.0, 0.0, 0.0]),
        # Of KL(π ‖ ref) by the logits: π_j·(d_j - KL), with d = log(π/ref) = log 2, log 1/2, 0 and KL = log 2 / 4.
        ("k2", [0.5 * 0.75 * LOG_2, -0.25 * 1.25 * LOG_2, -0.25 * 0.25 * LOG_2]),
        ("k3", [0.5 - 0.25, 0.25 - 0.5, 0.25 - 0.25]),  # of KL(ref ‖ π): π - ref
    ],
)
def test_the_mean_gradient_of_an_estimate_is_what_its_docstring_says(kind: KlEstimator, expected: list[float]) -> None:
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)).requires_grad_()
    reference = torch.log(torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64))
    policy = logits.log_softmax(-1)
    (policy.detach().exp() * kl_estimate(kind, policy, reference)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_model_without_a_penalty_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"trainer\.objective: frozen_model.*kl_weight"):
        recipe(objective={"type": "grpo", "frozen_model": "somewhere"})


def test_rloo_is_the_weighted_log_probability() -> None:
    policy_S = POLICY.clone().requires_grad_()
    total, _ = Rloo(type="rloo").loss(row(policy_S, [2.0, -1.0]))
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
    objective = recipe(objective=kind).trainer.objective
    for rewards in ([0.0] * 3, [-0.7] * 7) if kind["type"] in LIKELIHOOD else ([0.1] * 3, [-0.7] * 7, [1.3]):
        advantages = objective.advantages(rewards, list(range(len(rewards))))
        assert list(advantages) == [0.0] * len(rewards)
        assert objective.prefers(rewards) == (kind["type"] == "distill")  # a teacher has a say in it nevertheless


def test_distill_by_hand() -> None:
    """Tokens 0 and 1 are of one response, with reward 1 against 0: its centred part is 0.5 by a weight of 2."""
    objective = recipe(objective={"type": "distill", "reward_weight": 2.0}).trainer.objective
    advantages = list(objective.advantages([1.0, 0.0], [2, 1]))
    assert advantages == [1.0, -1.0]
    policy = POLICY.clone().requires_grad_()
    teacher = torch.log(torch.tensor([0.3, 0.4, 0.88]))
    one = replace(row(policy, advantages), teacher_S=teacher, teacher_kl_S=torch.tensor([0.2, 0.1, 0.0]))
    expected = [math.log(0.3 / 0.6) + 0.2 + 1, math.log(0.4 / 0.2) + 0.1 + 1, 0.0 - 1]
    loss = objective.loss(one)
    logs = POLICY.tolist()
    by_hand = -0.5 * (expected[0] * logs[0] + expected[1] * logs[1]) / 2 - 0.25 * expected[2] * logs[2]
    assert loss.total.item() == pytest.approx(by_hand, rel=1e-6)
    loss.total.backward()
    assert policy.grad is not None
    wanted = [-0.25 * expected[0], -0.25 * expected[1], -0.25 * expected[2]]  # nothing through the gap
    assert policy.grad.tolist() == pytest.approx(wanted, rel=1e-6)
    metrics = objective.metrics(loss.observed)
    assert metrics["teacher_kl"] == pytest.approx((math.log(0.6 / 0.3) + math.log(0.2 / 0.4)) / 3, abs=1e-6)
    bare = recipe(objective={"type": "distill", "control_variate": False}).trainer.objective
    (first, *_) = bare.loss(replace(one, advantage_S=torch.zeros(3), teacher_kl_S=None)).observed["advantage"].tolist()
    assert first == pytest.approx(math.log(0.5), rel=1e-6)


def test_a_sample_that_no_teacher_was_asked_of_is_named() -> None:
    table = recipe(objective={"type": "distill"})
    with pytest.raises(InvalidInputError, match=r"sample s has tokens without teacher_logprobs"):
        Learner(tiny_policy(), table).train(0, groups(1))


def test_every_kind_of_the_table_is_tested() -> None:
    assert {type(recipe(objective=kind).trainer.objective) for kind in KINDS} == set(
        get_args(get_args(ObjectiveTable)[0])
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_result_does_not_depend_on_how_the_batch_is_cut(kind: dict[str, Any]) -> None:
    results = []
    for microbatch_tokens in (30, 100_000):
        policy = tiny_policy()
        table = recipe(
            optimizer="sgd", learning_rate=0.1, steps_per_iteration=2, epochs_per_iteration=2, objective=kind,
            microbatch_tokens=microbatch_tokens,
        )  # fmt: skip
        metrics = Learner(policy, table).train(0, drawn_by(policy, groups(1)))
        shared = [metrics[name] for name in ("loss", "entropy", "hidden_grad_norm", "hidden_grad_variance", "ratio_kl")]
        results.append((state(policy), shared))
    torch.testing.assert_close(results[1], results[0], atol=2e-6, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rewarded_responses_become_likelier(kind: dict[str, Any]) -> None:
    policy = tiny_policy()
    batch = drawn_by(policy, groups(2))

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
    assert preference() > before + (0.01 if kind["type"] == "gspo" else 0.05)  # which clips at 3e-4
    assert all(math.isfinite(value) for each in metrics for value in each.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_engine_is_compared_with_the_policy_that_opens_the_iteration_alone(kind: dict[str, Any]) -> None:
    policy = tiny_policy()
    batch = drawn_by(policy, groups(2))
    for one in [each for group in batch for each in group.samples]:
        one.current_logprobs[1:] = plain_logprobs(policy, [one.tokens])[0]
    table = recipe(learning_rate=0.1, steps_per_iteration=2, epochs_per_iteration=2, objective=kind)
    metrics = Learner(policy, table).train(0, batch)
    assert metrics["engine_gap"] < 1e-4
    assert ("kl" in metrics) == (kind["type"] not in WITHOUT_REFERENCE)  # for which there is nothing to be far from


def test_grpo_and_rloo_step_nowhere_for_a_uniform_group() -> None:
    rng = np.random.default_rng(0)
    uniform = [TrainingGroup("u", [sample(rng, 1.0) for _ in range(4)])]
    for kind in ({"type": "grpo"}, {"type": "rloo"}):
        policy = tiny_policy()
        before = state(policy)
        Learner(policy, recipe(optimizer="sgd", learning_rate=0.5, objective=kind)).train(0, uniform)
        assert same_bits(before, state(policy))


def test_the_penalty_holds_the_policy_to_version_0_in_later_iterations_too() -> None:
    """With no advantage there is only the penalty: none at version 0, and a way back to it from elsewhere."""
    rng = np.random.default_rng(0)
    uniform = [TrainingGroup("u", [sample(rng, 1.0) for _ in range(4)])]
    mixed = [TrainingGroup("m", [sample(rng, float(number % 2)) for number in range(4)])]
    policy = tiny_policy()
    held = {"type": "grpo", "kl_weight": 1.0}
    learner = Learner(policy, recipe(optimizer="sgd", learning_rate=0.05, objective=held))
    first = learner.train(0, uniform)
    assert (first["frozen_kl"], first["grad_norm"]) == (0.0, 0.0)
    learner.train(1, mixed)
    away = learner.train(2, uniform)
    assert away["frozen_kl"] > 0
    assert learner.train(3, uniform)["frozen_kl"] < away["frozen_kl"]


def test_the_frozen_policy_is_the_one_given() -> None:
    other, rng = tiny_policy(seed=7), np.random.default_rng(0)
    batch = [TrainingGroup("u", [sample(rng, 1.0) for _ in range(2)])]
    policy = tiny_policy()
    table = recipe(learning_rate=1e-3, objective={"type": "grpo", "kl_weight": 1.0, "kl_estimator": "k1"})
    found = Learner(policy, table, frozen=other).train(0, batch)["frozen_kl"]
    scored = [torch.from_numpy(one.in_loss[1:]) for one in batch[0].samples]
    sequences = [one.tokens for one in batch[0].samples]
    mine, others = plain_logprobs(tiny_policy(), sequences), plain_logprobs(other, sequences)
    gaps = torch.cat([(a - b)[mask] for a, b, mask in zip(mine, others, scored, strict=True)])
    assert found == pytest.approx(gaps.mean().item(), abs=1e-5)


def test_with_adapters_the_frozen_policy_is_the_base_and_no_copy() -> None:
    rng = np.random.default_rng(0)
    batch = [TrainingGroup("m", [sample(rng, float(number % 2)) for number in range(4)])]
    policy, base = tiny_policy(), tiny_policy()
    adapter = {"rank": 2, "targets": ["q_proj", "v_proj"]}
    held = {"type": "grpo", "kl_weight": 0.1, "kl_estimator": "k1"}
    table = recipe(learning_rate=0.01, adapter=adapter, objective=held)
    assert table.trainer.adapter is not None
    adapt(policy.model, table.trainer.adapter, 0)
    learner = Learner(policy, table)
    own = {id(tensor) for tensor in (*policy.model.parameters(), *policy.model.buffers())}
    moments = {id(each) for state in learner.optimizer.state.values() for each in state.values()}
    assert {id(tensor) for tensor in learner.tensors()} == own | moments
    assert learner.train(0, batch)["frozen_kl"] == 0.0
    sequences, scored = [one.tokens for one in batch[0].samples], [one.in_loss[1:] for one in batch[0].samples]
    gaps = [a - b for a, b in zip(plain_logprobs(policy, sequences), plain_logprobs(base, sequences), strict=True)]
    expected = torch.cat([gap[torch.from_numpy(mask)] for gap, mask in zip(gaps, scored, strict=True)]).mean().item()
    assert learner.train(1, batch)["frozen_kl"] == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(0, abs=1e-4)
