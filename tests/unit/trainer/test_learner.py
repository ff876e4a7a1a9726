"""One iteration on a real tiny model: what the loss weighs, what the result may not depend on, and that it learns."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from perilune.errors import InvalidInputError
from perilune.objectives import k15
from perilune.recipe import LengthRewardTable
from services.trainer.batch import TrainingGroup, TrainingSample
from services.trainer.learner import InterruptedTraining, Learner, _shares
from services.trainer.optimization import DivergedError
from tests.unit.trainer.models import groups, plain_logprobs, recipe, same_bits, sample, state, tiny_policy

CORRECTED = {"correction": "decoupled"}
RLOO, GRPO = {"type": "rloo"}, {"type": "grpo"}


def test_one_sgd_step_is_the_gradient_of_the_papers_objective() -> None:
    """Two groups of unlike size: each counts the same, and each sample 1/k of its group."""
    rng = np.random.default_rng(0)
    batch = [
        TrainingGroup("a", [sample(rng, 1.0), sample(rng, 0.0)]),
        TrainingGroup("b", [sample(rng, 0.0), sample(rng, 0.0), sample(rng, 1.0)]),
    ]
    policy = tiny_policy()
    expected = copy.deepcopy(policy.model)
    expected.set_attn_implementation("eager")
    loss = torch.zeros(())
    for group in batch:
        for one, advantage in zip(
            group.samples, k15.advantages([s.score for s in group.samples], "mean", 0.1), strict=True
        ):
            ids = torch.from_numpy(one.tokens)[None]
            logprobs = torch.log_softmax(expected(ids, use_cache=False).logits[0, :-1], -1)
            logprob = (logprobs.gather(-1, ids[0, 1:, None])[:, 0] * torch.from_numpy(one.in_loss[1:])).sum()
            loss = loss - advantage * logprob / (len(batch) * len(group.samples))
    loss.backward()

    table = recipe(optimizer="sgd", learning_rate=0.5, max_grad_norm=1e9)
    metrics = Learner(policy, table).train(0, batch)
    stepped = dict(policy.model.named_parameters())
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(stepped[name], parameter - 0.5 * parameter.grad, atol=1e-6, rtol=1e-4)
    norm = torch.stack([parameter.grad.norm() for parameter in expected.parameters()]).norm().item()
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.0, 0.1, 1.0])
def test_the_result_does_not_depend_on_how_the_batch_is_cut_into_microbatches(tau: float) -> None:
    results = []
    for microbatch_tokens in (30, 200, 100_000):
        policy = tiny_policy()
        table = recipe(
            optimizer="sgd", learning_rate=0.1, objective={"tau": tau}, steps_per_iteration=2, epochs_per_iteration=2,
            microbatch_tokens=microbatch_tokens,
        )  # fmt: skip
        metrics = Learner(policy, table).train(0, groups(1))
        results.append((state(policy), metrics["loss"], metrics["kl"]))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=2e-6, rtol=1e-3)


def test_later_steps_are_pulled_back_to_the_reference() -> None:
    """With all advantages zero only (τ/2)·ρ² is left: after a step away from π_i, its gradient is not zero."""
    rng = np.random.default_rng(0)
    uniform = TrainingGroup("u", [sample(rng, 1.0) for _ in range(4)])
    mixed = TrainingGroup("m", [sample(rng, float(number % 2)) for number in range(4)])
    table = recipe(optimizer="sgd", learning_rate=0.1, objective={"tau": 1.0}, steps_per_iteration=2)
    alone = Learner(tiny_policy(), table).train(0, [uniform, uniform])
    assert alone["grad_norm"] == 0.0
    after_a_step = Learner(tiny_policy(), table).train(0, [mixed, uniform])
    assert after_a_step["kl"] > 0
    without = Learner(tiny_policy(), recipe(optimizer="sgd", learning_rate=0.1, objective={"tau": 0.0})).train(
        0, [mixed]
    )
    assert 2 * after_a_step["grad_norm"] > without["grad_norm"] * 1.001  # the sum of both steps' norms


def test_rewarded_responses_become_likelier() -> None:
    policy, batch = tiny_policy(), groups(2)
    right = [s for group in batch for s in group.samples if s.score == 1]
    wrong = [s for group in batch for s in group.samples if s.score == 0]

    def likelihood(samples) -> float:
        parts = plain_logprobs(policy, [s.tokens for s in samples])
        return sum(p[torch.from_numpy(s.in_loss[1:])].sum().item() for s, p in zip(samples, parts, strict=True)) / len(
            samples
        )

    before = likelihood(right) - likelihood(wrong)
    learner = Learner(policy, recipe(learning_rate=1e-3, num_iterations=5))
    for iteration in range(5):
        learner.train(iteration, batch)
    assert likelihood(right) - likelihood(wrong) > before + 1


def test_metrics_count_what_was_there() -> None:
    rng = np.random.default_rng(0)
    batch = [
        TrainingGroup("a", [sample(rng, 1.0, 5, 10), sample(rng, 0.0, 5, 20)]),
        TrainingGroup("b", [sample(rng, 1.0, 5, 6), sample(rng, 1.0, 5, 4)]),
    ]
    metrics = Learner(tiny_policy(), recipe(learning_rate=0.01)).train(0, batch)
    assert metrics["reward"] == 0.75
    assert metrics["num_samples"] == 4
    assert metrics["num_tokens"] == 40
    assert metrics["mean_tokens"] == 10
    assert metrics["mixed_groups"] == 0.5
    assert metrics["kl"] == 0.0
    assert metrics["loss"] == 0.0  # the log ratio is zero before the first step
    assert 0 < metrics["entropy"] < 10
    assert "engine_gap" not in metrics  # no engine told its log-probs


def test_the_engine_gap_is_the_largest_difference_of_one_token() -> None:
    policy, one = tiny_policy(), groups(5, 1, 2)[0]
    for number, s in enumerate(one.samples):
        (logprobs,) = plain_logprobs(policy, [s.tokens])
        s.current_logprobs[1:] = logprobs
        s.current_logprobs[-1] += 0.25 * number
    metrics = Learner(policy, recipe()).train(0, [one])
    assert metrics["engine_gap"] == pytest.approx(0.25, abs=1e-4)


def test_an_empty_batch_changes_nothing() -> None:
    policy = tiny_policy()
    before = state(policy)
    metrics = Learner(policy, recipe()).train(0, [])
    assert same_bits(before, state(policy))
    assert metrics["num_samples"] == 0
    assert "reward" not in metrics


def test_the_optimizer_is_reset_where_the_recipe_says_so() -> None:
    steps = []
    for reset in (False, True):
        learner = Learner(tiny_policy(), recipe(reset_optimizer=reset))
        for iteration in range(2):
            learner.train(iteration, groups(iteration))
        (first, *_) = learner.optimizer.state.values()
        steps.append(first["step"].item())
    assert steps == [2, 1]


def test_it_stops_between_steps() -> None:
    with pytest.raises(InterruptedTraining):
        Learner(tiny_policy(), recipe()).train(0, groups(0), should_stop=lambda: True)


def test_a_gradient_that_is_no_number_leaves_the_weights_alone() -> None:
    policy = tiny_policy()
    batch = groups(0)
    # Infinite in float32.
    batch[0] = TrainingGroup("inf", [sample(np.random.default_rng(0), score) for score in (1e39, 0.0)])
    before = state(policy)
    with pytest.raises(DivergedError, match="learning rate"):
        Learner(policy, recipe()).train(0, batch)
    assert same_bits(before, state(policy))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_no_number_is_named(score: float) -> None:
    policy, before = tiny_policy(), state(tiny_policy())
    batch = [TrainingGroup("odd", [sample(np.random.default_rng(0), each) for each in (1.0, score)])]
    with pytest.raises(InvalidInputError, match=r"sample s of group odd has the reward .* finite number"):
        Learner(policy, recipe()).train(0, batch)
    assert same_bits(before, state(policy))


def test_bf16_autocast_stays_close_and_keeps_fp32_weights() -> None:
    exact, rounded = tiny_policy(), tiny_policy()
    for policy, precision in ((exact, "fp32"), (rounded, "bf16")):
        metrics = Learner(policy, recipe(precision=precision, optimizer="sgd", learning_rate=0.1)).train(0, groups(0))
    assert metrics["entropy"] > 0
    for name, parameter in rounded.model.named_parameters():
        assert parameter.dtype == torch.float32
        torch.testing.assert_close(parameter, dict(exact.model.named_parameters())[name], atol=0.02, rtol=0)
    assert not same_bits(state(exact), state(rounded))


@pytest.mark.parametrize(
    ("num_groups", "num_steps", "sizes"), [(10, 4, [2, 3, 2, 3]), (8, 4, [2] * 4), (3, 5, [1] * 3), (0, 4, [])]
)
def test_groups_are_spread_over_as_many_steps_as_the_recipe_says(
    num_groups: int, num_steps: int, sizes: list[int]
) -> None:
    batch = groups(seed=0, num_groups=num_groups, size=2)
    shares = _shares(batch, num_steps)
    assert [len(share) for share in shares] == sizes
    assert [group for share in shares for group in share] == batch


def test_the_number_of_steps_is_that_of_the_recipe() -> None:
    learner = Learner(tiny_policy(), recipe(steps_per_iteration=5, epochs_per_iteration=2, optimizer="sgd"))
    assert learner.train(0, groups(seed=1, num_groups=7, size=2))["num_steps"] == 10


def every_token(num_tokens: int, rewards: np.ndarray) -> TrainingGroup:
    """A prompt and every response of one token, each once."""
    prompt = np.array([1, 5, 9, 6])
    samples = [
        TrainingSample(
            id=f"{token}",
            tokens=np.append(prompt, token),
            in_loss=np.arange(5) == 4,
            current_logprobs=np.full(5, np.nan, np.float32),
            score=float(rewards[token]),
            correct=False,
        )
        for token in range(num_tokens)
    ]
    return TrainingGroup("all", samples)


def cosine(left: torch.Tensor, right: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(left, right, dim=0).item()


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"segments": "all"},
        {"objective": CORRECTED},
        {"objective": {"type": "rloo"}},
        {"objective": {"type": "grpo"}},
    ],
)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_the_gradient_is_of_the_distribution_that_was_sampled_from(temperature: float, chosen: dict[str, Any]) -> None:
    """Of all responses of one token, by hand: sum over them of (r - mean r) grad log softmax(l / T)."""
    policy = tiny_policy()
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(8)  # the head too: a distribution that is not flat
    num_tokens = policy.model.config.vocab_size
    rewards = np.random.default_rng(0).random(num_tokens)
    group = every_token(num_tokens, rewards)
    expected = copy.deepcopy(policy.model)
    expected.set_attn_implementation("eager")
    logits = expected(torch.tensor([[1, 5, 9, 6]]), use_cache=False).logits[0, -1]
    logprobs = (logits / temperature).log_softmax(-1)
    for each, logprob in zip(group.samples, logprobs.tolist(), strict=True):
        object.__setattr__(each, "current_logprobs", np.array([np.nan] * 4 + [logprob], np.float32))
        object.__setattr__(each, "behaviour_logprobs", np.array([np.nan] * 4 + [logprob], np.float32))
    (torch.tensor(rewards - rewards.mean(), dtype=torch.float32) * logprobs).sum().backward()
    before = torch.cat([parameter.detach().flatten() for parameter in policy.model.parameters()]).clone()
    table = recipe(
        rollout={"temperature": temperature, "max_staleness": 1},
        optimizer="sgd", learning_rate=1.0, max_grad_norm=1e9, **chosen,
    )  # fmt: skip
    metrics = Learner(policy, table).train(0, [group])
    after = torch.cat([parameter.detach().flatten() for parameter in policy.model.parameters()])
    true = torch.cat([parameter.grad.flatten() for parameter in expected.parameters()])
    assert cosine(after - before, true) > 0.99999
    assert metrics["engine_gap"] < 1e-3
    assert metrics["entropy"] == pytest.approx(-logprobs.mean().item(), rel=1e-4)


def test_metrics_are_finite_numbers() -> None:
    rng = np.random.default_rng(0)
    batch = [TrainingGroup("a", [sample(rng, float(score)) for score in (0, 1)])]
    for one in batch[0].samples:  # corrected, and no token of any sample is in the loss
        one.in_loss[:] = False
        object.__setattr__(one, "behaviour_logprobs", np.full(len(one.tokens), -1.0, np.float32))
    metrics = Learner(tiny_policy(), recipe(objective=CORRECTED)).train(0, batch)
    assert all(np.isfinite(value) for value in metrics.values())
    assert "importance_mean" not in metrics


def test_ratios_are_to_what_tokens_were_drawn_with() -> None:
    """Of ten tokens one is half a nat above what it was drawn with, three are unknown, the others as they were."""
    policy, rng = tiny_policy(), np.random.default_rng(0)
    batch = [TrainingGroup("a", [sample(rng, 1.0, 5, 4), sample(rng, 0.0, 5, 6)])]
    for one in batch[0].samples:
        logprobs = plain_logprobs(policy, [one.tokens])[0].numpy()
        object.__setattr__(one, "behaviour_logprobs", np.concatenate([[np.nan], logprobs]).astype(np.float32))
    assert batch[0].samples[0].behaviour_logprobs is not None
    assert batch[0].samples[1].behaviour_logprobs is not None
    batch[0].samples[0].behaviour_logprobs[-1] -= 0.5
    batch[0].samples[1].behaviour_logprobs[-3:] = np.nan
    metrics = Learner(policy, recipe()).train(0, batch)
    w = np.exp(0.5)
    assert metrics["ratio_effective_share"] == pytest.approx((6 + w) ** 2 / (7 * (6 + w**2)), rel=1e-4)
    assert metrics["ratio_second_moment"] == pytest.approx(0.25 / 7, rel=1e-4)
    assert metrics["ratio_kl"] == pytest.approx((w - 1.5) / 7, rel=1e-3)
    assert metrics["ratio_outside"] == pytest.approx(1 / 7)


def test_groups_that_agree_have_no_variance_of_their_gradients() -> None:
    one = TrainingGroup("m", [sample(np.random.default_rng(3), float(number % 2)) for number in range(4)])
    metrics = [Learner(tiny_policy(), recipe()).train(0, batch) for batch in ([one, one], [one, groups(1)[0]])]
    assert metrics[0]["hidden_grad_norm"] > 0
    assert metrics[0]["hidden_grad_variance"] == pytest.approx(0, abs=1e-9)
    assert metrics[1]["hidden_grad_variance"] > 1e-6
    assert "hidden_grad_norm" not in Learner(tiny_policy(), recipe()).train(0, [one])


def test_a_group_is_mixed_by_the_rewards_of_the_objective() -> None:
    rng = np.random.default_rng(0)
    batch = [TrainingGroup("a", [sample(rng, 1.0, num_response=length) for length in (3, 9)])]
    plain = recipe()
    shaped = plain.model_copy(
        update={"reward": plain.reward.model_copy(update={"length": LengthRewardTable(weight=1)})}
    )
    assert Learner(tiny_policy(), plain).train(0, batch)["mixed_groups"] == 0
    assert Learner(tiny_policy(), shaped).train(0, batch)["mixed_groups"] == 1
