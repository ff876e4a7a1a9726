"""The objective against numbers worked out by hand, and its two forms against each other."""

from __future__ import annotations

import math

import pytest
import torch

from perilune.objectives.k15 import advantages, log_z, policy_loss


def test_log_z_of_one_success_in_two() -> None:
    # 0.5 · log((e² + e⁰) / 2)
    assert log_z([1.0, 0.0], tau=0.5) == pytest.approx(0.5 * math.log((math.exp(2) + 1) / 2))
    assert log_z([1.0, 0.0], tau=0.5) == pytest.approx(0.716890, abs=1e-6)


def test_log_z_tends_to_the_mean_for_large_tau_and_to_the_best_for_small_tau() -> None:
    rewards = [1.0, 0.0, 0.0, 0.0]
    assert log_z(rewards, tau=1e6) == pytest.approx(0.25, abs=1e-6)
    assert log_z(rewards, tau=1e-4) == pytest.approx(1 - 1e-4 * math.log(4))  # exp(1/τ) alone would overflow
    assert log_z(rewards, tau=0) == 1.0


def test_advantages_with_either_baseline() -> None:
    assert advantages([1.0, 0.0, 0.0, 0.0], "mean", tau=0.1) == [0.75, -0.25, -0.25, -0.25]
    level = log_z([1.0, 0.0], tau=0.5)
    assert advantages([1.0, 0.0], "log_z", tau=0.5) == pytest.approx([1 - level, -level])


@pytest.mark.parametrize("baseline", ["mean", "log_z"])
def test_a_uniform_group_has_no_advantage_to_the_last_bit(baseline: str) -> None:
    assert advantages([0.1] * 3, baseline, tau=0.1) == [0.0, 0.0, 0.0]


def test_values_by_hand() -> None:
    advantage, log_ratio = torch.tensor([0.75, -0.25]), torch.tensor([0.2, -1.0])
    # -0.75·0.2 + 0.05·0.04, 0.25·(-1) + 0.05·1
    assert policy_loss(advantage, log_ratio, tau=0.1).tolist() == pytest.approx([-0.148, -0.2])


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_the_loss_and_the_papers_surrogate_have_one_gradient_up_to_the_scale(tau: float) -> None:
    advantage = torch.tensor([0.75, -0.25, 0.1], dtype=torch.float64)
    log_ratio = torch.tensor([0.2, -1.0, 0.0], dtype=torch.float64, requires_grad=True)
    (of_loss,) = torch.autograd.grad(policy_loss(advantage, log_ratio, tau).sum(), log_ratio)
    (of_surrogate,) = torch.autograd.grad(((advantage - tau * log_ratio) ** 2).sum(), log_ratio)
    torch.testing.assert_close(of_loss, of_surrogate / (2 * tau))


def test_the_gradient_is_the_papers() -> None:
    """∇log π·(r - r̄) - (τ/2)·∇ρ², ascended: for log π itself as the parameter that is (r - r̄) - τ·ρ."""
    tau, reference = 0.1, torch.tensor([-3.0, -5.0])
    log_policy = torch.tensor([-2.5, -5.5], requires_grad=True)
    advantage = torch.tensor([0.5, -0.5])
    (gradient,) = torch.autograd.grad(policy_loss(advantage, log_policy - reference, tau).sum(), log_policy)
    assert (-gradient).tolist() == pytest.approx([0.5 - 0.1 * 0.5, -0.5 - 0.1 * -0.5])


def test_without_tau_it_is_the_policy_gradient() -> None:
    log_ratio = torch.tensor([0.3, -0.7], requires_grad=True)
    (gradient,) = torch.autograd.grad(policy_loss(torch.tensor([0.5, -0.5]), log_ratio, tau=0).sum(), log_ratio)
    assert gradient.tolist() == [-0.5, 0.5]
