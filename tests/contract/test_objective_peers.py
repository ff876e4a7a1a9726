"""Our objectives beside TRL's and verl's own functions: the same batch, the same loss and the same gradient.

verl comes with the extra `peers`, or for this test alone without its dependencies (docs/dependencies.md); where it is
not installed its part is left out. The same values, by hand, are in tests/unit/trainer/test_objective_maths.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from perilune.objectives.objective import LossRow
from tests.unit.trainer.models import recipe

pytestmark = pytest.mark.slow

LENGTHS, LONGEST = (3, 5, 1, 4), 5
REWARDS = (1.0, 0.0, 0.5, 0.0)
MASK = torch.tensor([[place < length for place in range(LONGEST)] for length in LENGTHS])


def draws(seed: int) -> Tensor:
    return torch.randn(len(LENGTHS), LONGEST, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


POLICY = draws(0).sub(2)
OLD, FROZEN = POLICY + 0.3 * draws(1), POLICY + 0.3 * draws(2)  # ratios on both sides of every clip


def by_tokens(values: Tensor) -> Tensor:
    return values[MASK]


def loss_of(keys: dict[str, Any], policy: Tensor, old: Tensor, frozen: Tensor, advantages: list[float]) -> Tensor:
    """Our loss of one group, from padded arrays of log-probabilities."""
    objective = recipe(objective=keys, rollout={"max_tokens": LONGEST}).trainer.objective
    sequence_S = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    row = LossRow(
        policy_S=by_tokens(policy),
        reference_S=by_tokens(old),
        behaviour_S=by_tokens(old),
        advantage_S=torch.tensor(advantages, dtype=policy.dtype)[sequence_S],
        sequence_S=sequence_S,
        weight_n=torch.full((len(LENGTHS),), 1 / len(LENGTHS), dtype=policy.dtype),
        frozen_S=by_tokens(frozen) if "frozen" in objective.needs else None,
        num_step_tokens=sum(LENGTHS),
        max_tokens=LONGEST,
    )
    return objective.loss(row).total


def advantages_of(keys: dict[str, Any]) -> list[float]:
    return list(recipe(objective=keys).trainer.objective.advantages(REWARDS, LENGTHS))  # type: ignore[arg-type]


# TRL: its trainer on a tiny model, whose gradients are compared parameter by parameter.

TRL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "grpo"}, {"loss_type": "grpo"}),
    ({"type": "grpo", "clip_high": 0.28}, {"loss_type": "grpo", "epsilon_high": 0.28}),
    ({"type": "grpo", "kl_weight": 0.3}, {"loss_type": "grpo", "beta": 0.3}),
    ({"type": "dr_grpo"}, {"loss_type": "dr_grpo"}),
    ({"type": "dr_grpo", "kl_weight": 0.3}, {"loss_type": "dr_grpo", "beta": 0.3}),
    ({"type": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    ({"type": "ppo"}, {"loss_type": "bnpo"}),
    ({"type": "gspo"}, {"loss_type": "grpo", "importance_sampling_level": "sequence", **{"low": 3e-4, "high": 4e-4}}),
    ({"type": "cispo"}, {"loss_type": "cispo", "epsilon_high": 5.0}),
    ({"type": "cispo", "ratio_limit": 1.1}, {"loss_type": "cispo", "epsilon_high": 1.1}),
]


@pytest.fixture(scope="module")
def trl_trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from tests.contract.test_trl import tiny

    model, tokenizer = tiny()
    arguments = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        num_generations=4,
        per_device_train_batch_size=4,
        max_completion_length=LONGEST,
        use_cpu=True,
        report_to="none",
        bf16=False,
        gradient_checkpointing=False,
        use_bias_correction_kl=False,  # its own default weighs the penalty by the ratio, which GRPO does not
    )
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["?"] * 4}),
        args=arguments,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.double().train()
    return trainer


@pytest.mark.parametrize(("keys", "theirs"), TRL, ids=str)
def test_trl_has_the_same_loss_and_gradient(trl_trainer: Any, keys: dict[str, Any], theirs: dict[str, Any]) -> None:
    given = {"epsilon_low": theirs.get("low", 0.2), "epsilon_high": theirs.get("high", 0.2), "beta": 0.0}
    given |= {"importance_sampling_level": "token"} | theirs
    for name, value in given.items():
        if name not in ("low", "high"):
            setattr(trl_trainer, name, value)
    model, inputs = trl_trainer.model, trl_inputs(advantages_of(keys))
    own = own_logprobs(trl_trainer, inputs)
    inputs |= {
        "old_per_token_logps": own.detach() + OLD - POLICY,
        "ref_per_token_logps": own.detach() + FROZEN - POLICY,
    }
    expected = trl_trainer._compute_loss(model, inputs)
    wanted = gradients(model, expected)
    found = loss_of(
        keys, own_logprobs(trl_trainer, inputs), inputs["old_per_token_logps"], inputs["ref_per_token_logps"],
        advantages_of(keys),
    )  # fmt: skip
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    for ours, peers in zip(gradients(model, found), wanted, strict=True):
        torch.testing.assert_close(ours, peers, atol=1e-6, rtol=0)


def trl_inputs(advantages: list[float]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "prompt_ids": torch.tensor([[2, 2]] * 4),
        "prompt_mask": torch.ones(4, 2, dtype=torch.long),
        "completion_ids": torch.from_numpy(rng.integers(0, 5, (4, LONGEST))),
        "completion_mask": MASK.long(),
        "advantages": torch.tensor(advantages, dtype=torch.float64),
        "num_items_in_batch": MASK.sum(),
    }


def own_logprobs(trainer: Any, inputs: dict[str, Any]) -> Tensor:
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, LONGEST)[0]


def gradients(model: torch.nn.Module, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_trl_normalises_by_a_larger_deviation() -> None:
    """Which docs/objectives.md says: by k - 1, where ours divides by k."""
    rewards = torch.tensor(REWARDS)
    theirs = (rewards - rewards.mean()) / (rewards.std() + 1e-4)  # as `_generate_and_score_completions` has it
    assert theirs.tolist() == pytest.approx([(3 / 4) ** 0.5 * a for a in advantages_of({"type": "grpo"})], abs=1e-3)


# verl: the functions of core_algos, with gradients by the log-probabilities.

VERL: list[tuple[dict[str, Any], str, dict[str, Any], str]] = [
    ({"type": "grpo", "clip_high": 0.28}, "vanilla", {"clip_ratio_high": 0.28}, "seq-mean-token-mean"),
    ({"type": "dapo"}, "vanilla", {"clip_ratio_high": 0.28}, "token-mean"),
    ({"type": "dr_grpo"}, "vanilla", {}, "seq-mean-token-sum-norm"),
    ({"type": "ppo", "dual_clip": 1.3}, "vanilla", {"clip_ratio_c": 1.3}, "token-mean"),
    ({"type": "gspo"}, "gspo", {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}, "seq-mean-token-mean"),
    ({"type": "cispo"}, "cispo", {"clip_ratio_low": 1.0, "clip_ratio_high": 4.0}, "token-mean"),
    ({"type": "cispo", "ratio_limit": 1.1}, "cispo", {"clip_ratio_low": 1.0, "clip_ratio_high": 0.1}, "token-mean"),
    ({"type": "reinforce"}, "gpg", {}, "seq-mean-token-sum"),
    ({"type": "rloo"}, "gpg", {}, "seq-mean-token-sum"),
]
NO_DUAL_CLIP = {"clip_ratio_c": 1e9}


@cache
def verl_algorithms() -> Any:
    pytest.importorskip("verl", reason="verl is not installed: pip install 'perilune[peers]'")
    from verl.trainer.ppo import core_algos

    return core_algos


@pytest.mark.parametrize(("keys", "name", "theirs", "reduction"), VERL, ids=str)
def test_verl_has_the_same_loss_and_gradient(
    keys: dict[str, Any], name: str, theirs: dict[str, Any], reduction: str
) -> None:
    algorithms, config = verl_algorithms(), verl_config(**NO_DUAL_CLIP | theirs)
    found, expected = POLICY.clone().requires_grad_(), POLICY.clone().requires_grad_()
    advantages = torch.tensor(advantages_of(keys), dtype=torch.float64)[:, None].expand(-1, LONGEST)
    function = algorithms.get_policy_loss_fn(name)
    wanted, *_ = function(OLD, expected, advantages, MASK.double(), loss_agg_mode=reduction, config=config)
    wanted.backward()
    ours = loss_of(keys, found, OLD, FROZEN, advantages_of(keys))
    ours.backward()
    assert ours.item() == pytest.approx(wanted.item(), abs=1e-7)
    torch.testing.assert_close(found.grad, expected.grad, atol=1e-7, rtol=1e-6)


def verl_config(**keys: Any) -> Any:
    from verl.workers.config import FSDPActorConfig

    return FSDPActorConfig(ppo_micro_batch_size_per_gpu=1, rollout_n=1, **keys)


def test_verls_dppo_masks_the_same_tokens() -> None:
    """It has the ratio as a weight on log π, ours as the ratio: another loss, the same gradient. It has no pull."""
    algorithms, keys = verl_algorithms(), {"type": "dppo", "mask_low": 0.02, "mask_high": 0.03, "tau": 0.0}
    found, expected = POLICY.clone().requires_grad_(), POLICY.clone().requires_grad_()
    advantages = torch.tensor(advantages_of(keys), dtype=torch.float64)[:, None].expand(-1, LONGEST)
    config = verl_config(clip_ratio_low=0.02, clip_ratio_high=0.03, clip_ratio_c=1e9)
    function = algorithms.get_policy_loss_fn("dppo_tv")
    function(OLD, expected, advantages, MASK.double(), loss_agg_mode="token-mean", config=config)[0].backward()
    loss_of(keys, found, OLD, FROZEN, advantages_of(keys)).backward()
    torch.testing.assert_close(found.grad, expected.grad, atol=1e-7, rtol=1e-6)
    assert found.grad is not None
    assert 0 < (found.grad[MASK] == 0).sum() < sum(LENGTHS)  # some are left out


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_verl_estimates_the_same_divergence(estimator: str) -> None:
    from perilune.objectives.kl import kl_estimate

    theirs = verl_algorithms().kl_penalty(POLICY, FROZEN, estimator)
    torch.testing.assert_close(kl_estimate(estimator, POLICY, FROZEN), theirs)  # type: ignore[arg-type]


def test_verl_has_the_same_advantages() -> None:
    algorithms = verl_algorithms()
    scores = torch.zeros(4, LONGEST, dtype=torch.float64)
    scores[:, 0] = torch.tensor(REWARDS)
    group = np.array(["a"] * 4)
    for keys, function, options, factor in (
        ({"type": "rloo"}, algorithms.compute_rloo_outcome_advantage, {}, 1),
        ({"type": "dr_grpo"}, algorithms.compute_grpo_outcome_advantage, {"norm_adv_by_std_in_grpo": False}, 1),
        ({"type": "grpo"}, algorithms.compute_grpo_outcome_advantage, {}, (3 / 4) ** 0.5),
    ):
        theirs, _ = function(scores.clone(), torch.ones(4, LONGEST), group, **options)
        ours = [factor * each for each in advantages_of(keys)]
        assert theirs[:, 0].tolist() == pytest.approx(ours, abs=1e-5)


def test_nothing_is_left_out_by_mistake() -> None:
    """Every clip of the comparisons acts on some tokens, and leaves others alone."""
    ratio = (POLICY - OLD)[MASK].exp()
    assert ((ratio > 1.28).any(), (ratio < 0.8).any(), ((ratio < 1.28) & (ratio > 0.8)).any()) == (True, True, True)
