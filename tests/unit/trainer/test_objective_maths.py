"""Each objective of the table on one small row, by hand, and its gradient by central differences."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from perilune.objectives.advantages import centred, left_one_out, normalized
from perilune.objectives.objective import LossRow, Objective
from perilune.objectives.shaping import Response
from tests.unit.trainer.models import recipe

# Two responses of one group: tokens 0 and 1, and token 2; a third one, with three tokens, lies in another row.
# Ratios to the reference are 1.5, 0.5 and 1.1.
POLICY = torch.log(torch.tensor([0.6, 0.2, 0.88], dtype=torch.float64))
REFERENCE = torch.log(torch.tensor([0.4, 0.4, 0.8], dtype=torch.float64))
ADVANTAGES = (2.0, -1.0)
NUM_STEP_TOKENS, MAX_TOKENS = 6, 10
L = [math.log(0.6), math.log(0.2), math.log(0.88)]


def row(policy_S: torch.Tensor = POLICY, advantages: tuple[float, float] = ADVANTAGES, **changes: Any) -> LossRow:
    sequence_S = torch.tensor([0, 0, 1])
    return LossRow(
        policy_S,
        REFERENCE,
        REFERENCE,
        torch.tensor(advantages, dtype=torch.float64)[sequence_S],
        sequence_S,
        torch.tensor([1 / 3, 1 / 3], dtype=torch.float64),
        num_step_tokens=NUM_STEP_TOKENS,
        max_tokens=MAX_TOKENS,
        **changes,
    )


def objective(**keys: Any) -> Objective:
    return recipe(objective=keys).trainer.objective


# Of the ratio that GSPO clips: the geometric mean of 1.5 and 0.5, and 1.1.
S0, S1 = math.sqrt(0.75), 1.1
BY_HAND: list[tuple[dict[str, Any], float]] = [
    ({"type": "reinforce"}, -(2 * (L[0] + L[1]) - L[2]) / 3),
    ({"type": "rloo"}, -(2 * (L[0] + L[1]) - L[2]) / 3),
    ({"type": "grpo"}, -((2.4 + 1.0) / 2 - 1.1) / 3),
    ({"type": "grpo", "clip_high": 0.4}, -((2.8 + 1.0) / 2 - 1.1) / 3),
    ({"type": "dr_grpo"}, -(2.4 + 1.0 - 1.1) / 3 / 10),
    ({"type": "dapo"}, -(2 * 1.28 + 1.0 - 1.1) / 6),
    ({"type": "ppo"}, -(2.4 + 1.0 - 1.1) / 6),
    ({"type": "ppo", "dual_clip": 1.05}, -(2.4 + 1.0 - 1.05) / 6),  # -1.1 is not below -1.05
    ({"type": "gspo"}, -(2 * S0 - S1) / 3),
    ({"type": "gspo", "clip": 0.2, "clip_high": 0.01}, -(2 * S0 - S1) / 3),
    ({"type": "cispo"}, -(2 * (1.5 * L[0] + 0.5 * L[1]) - 1.1 * L[2]) / 6),
    ({"type": "cispo", "ratio_limit": 1.2}, -(2 * (1.2 * L[0] + 0.5 * L[1]) - 1.1 * L[2]) / 6),
    # 0.6 - 0.4 is above a distance of 0.1: token 0 keeps its pull alone; token 1 fell, but is a good one.
    (
        {"type": "dppo", "mask_low": 0.1, "mask_high": 0.1, "tau": 0.5},
        -(2 * 0.5 - 1.1) / 6 + 0.5 * (math.log(1.5) ** 2 + math.log(0.5) ** 2 + math.log(1.1) ** 2) / 6,
    ),
    ({"type": "dppo", "mask_high": 0.3, "tau": 0.0}, -(2 * (1.5 + 0.5) - 1.1) / 6),
    ({"type": "rest"}, -(2 * (L[0] + L[1]) - L[2]) / 3),
    ({"type": "sft"}, -(2 * (L[0] + L[1]) - L[2]) / 3),
]


@pytest.mark.parametrize(("keys", "expected"), BY_HAND, ids=str)
def test_the_loss_by_hand(keys: dict[str, Any], expected: float) -> None:
    assert objective(**keys).loss(row()).total.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("keys", "expected"), BY_HAND, ids=str)
def test_the_gradient_by_central_differences(keys: dict[str, Any], expected: float) -> None:
    """CISPO's is that of what it does not stop: each token's weight times the gradient of its log-probability."""
    one = objective(**keys)
    policy_S = POLICY.clone().requires_grad_()
    one.loss(row(policy_S)).total.backward()
    assert policy_S.grad is not None
    if keys["type"] == "cispo":
        weights = torch.tensor([min(1.5, keys.get("ratio_limit", 5.0)) * 2, 0.5 * 2, -1.1])
        assert policy_S.grad.tolist() == pytest.approx((-weights / 6).tolist())
        return
    for place in range(3):
        up, down = POLICY.clone(), POLICY.clone()
        up[place] += 1e-6
        down[place] -= 1e-6
        slope = (one.loss(row(up)).total - one.loss(row(down)).total).item() / 2e-6
        assert policy_S.grad[place].item() == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize(
    ("keys", "advantages", "cut"),
    [
        ({"type": "dapo"}, (2.0, -1.0), [1, 0, 0]),
        ({"type": "ppo"}, (-1.0, 1.0), [0, 1, 0]),
        ({"type": "ppo", "dual_clip": 1.4}, (-1.0, 1.0), [1, 1, 0]),  # a bad token that became 1.5 times as likely
        ({"type": "gspo"}, (2.0, -1.0), [0, 0, 0]),
        ({"type": "gspo"}, (-1.0, 1.0), [1, 1, 1]),  # whole responses
        ({"type": "cispo", "ratio_limit": 1.2}, (2.0, -1.0), [1, 0, 0]),
        ({"type": "dppo", "mask_high": 0.19}, (2.0, -1.0), [1, 0, 0]),
        ({"type": "dppo", "mask_low": 0.19}, (-2.0, 1.0), [0, 1, 0]),
    ],
    ids=str,
)
def test_what_is_cut(keys: dict[str, Any], advantages: tuple[float, float], cut: list[int]) -> None:
    one = objective(**keys)
    found = one.loss(row(advantages=advantages))
    assert found.observed["clipped"].tolist() == cut
    assert one.metrics(found.observed)["clipped"] == pytest.approx(sum(cut) / 3)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo", "ppo", "gspo", "cispo"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_penalty_is_averaged_as_what_is_gained(kind: str, estimator: str) -> None:
    frozen_S = torch.log(torch.tensor([0.3, 0.4, 0.88], dtype=torch.float64))
    plain = objective(type=kind)
    held = objective(type=kind, kl_weight=0.3, kl_estimator=estimator)
    assert held.needs == {"iteration", "frozen"}
    d = [math.log(2), -math.log(2), 0.0]
    kl = {"k1": d, "k2": [x * x / 2 for x in d], "k3": [math.exp(-x) - 1 + x for x in d]}[estimator]
    weights = {
        "grpo": [1 / 6, 1 / 6, 1 / 3],
        "gspo": [1 / 6, 1 / 6, 1 / 3],
        "dr_grpo": [1 / 30] * 3,
    }.get(kind, [1 / 6] * 3)
    penalty = 0.3 * sum(w * x for w, x in zip(weights, kl, strict=True))
    found = held.loss(row(frozen_S=frozen_S)).total - plain.loss(row()).total
    assert found.item() == pytest.approx(penalty, rel=1e-9)


@pytest.mark.parametrize("kind", ["k15", "reinforce", "rloo", "grpo", "dr_grpo", "dapo", "ppo", "gspo", "cispo"])
def test_an_importance_weight_scales_what_its_token_gains(kind: str) -> None:
    """`masked` at a limit of 1.2 leaves token 2 alone, whose ratio to what it was drawn with is 1.1."""
    one = objective(type=kind, correction="masked", correction_limit=1.2)
    assert one.needs >= {"iteration", "behaviour"}
    policy_S = POLICY.clone().requires_grad_()
    plain_S = POLICY.clone().requires_grad_()
    keys = {"tau": 0.0} if kind == "k15" else {}
    found = objective(type=kind, correction="masked", correction_limit=1.2, **keys).loss(row(policy_S))
    found.total.backward()
    objective(type=kind, **keys).loss(row(plain_S)).total.backward()
    assert found.observed["importance"].tolist() == pytest.approx([0, 0, 1.1])
    assert policy_S.grad is not None
    assert plain_S.grad is not None
    assert policy_S.grad.tolist() == pytest.approx([0, 0, 1.1 * plain_S.grad[2].item()])


def test_advantages_by_hand() -> None:
    assert centred([1.0, 0.0, 0.0, 1.0]) == [0.5, -0.5, -0.5, 0.5]
    assert normalized([1.0, 0.0, 0.0, 1.0]) == pytest.approx([1, -1, -1, 1], abs=1e-5)
    assert left_one_out([1.0, 0.0, 0.0]) == [1.0, -0.5, -0.5]
    rest, sft = objective(type="rest"), objective(type="sft")
    assert rest.advantages([0.2, 1.0, 1.0, 0.0], [5, 3, 4, 2]) == [0, 2, 2, 0]
    assert sft.advantages([0.0, 1.0, 1.0, 0.0], [5, 3, 5, 2]) == [0, 0.5, 0.5, 0]
    assert rest.advantages([1.0, 1.0], [1, 1]) == [1, 1]  # a group of right responses has something to fit
    assert sft.advantages([1.0, 0.0], [0, 3]) == [0, 0]  # a right response none of whose tokens is in the loss


def test_only_what_is_good_enough_is_fitted() -> None:
    rest, sft = objective(type="rest", threshold=0.5), objective(type="sft")
    assert [rest.prefers(rewards) for rewards in ([0.5, 0.0], [0.6, 0.0], [1.0, 1.0])] == [False, True, True]
    assert rest.advantages([0.5, 0.0], [1, 1]) == [0, 0]
    assert [sft.prefers(rewards) for rewards in ([0.0, 0.0], [1.0, 0.0], [1.0, 1.0])] == [False, True, True]
    responses = [Response(0.2, 5, correct=True, repeated=True), Response(0.9, 5, correct=False, repeated=False)]
    assert sft.rewards(responses, recipe().reward, 0) == [1.0, 0.0]


def test_a_response_counts_by_its_tokens_or_as_one() -> None:
    """Two tokens against one: DAPO's mean is over tokens, GRPO's over responses, Dr. GRPO's sum divides by neither."""
    same = replace(row(), policy_S=REFERENCE)  # ratios of 1
    totals = {kind: objective(type=kind).loss(same).total.item() for kind in ("grpo", "dapo", "dr_grpo")}
    assert totals == pytest.approx({"grpo": -(2 - 1) / 3, "dapo": -(2 * 2 - 1) / 6, "dr_grpo": -(2 * 2 - 1) / 30})
