"""Passes in bf16 and with layers that are computed again, and rows that have no room: the gradient is the same."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from perilune.errors import InvalidInputError
from services.trainer.batch import TrainingGroup
from services.trainer.learner import Learner
from services.trainer.policy.layers import decoder_layers
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import PackedRow, pack_rows
from services.trainer.policy.passes import Passes, PassOptions
from services.trainer.ranks.group import RankLostError, Ranks
from tests.unit.families import tiny
from tests.unit.trainer.models import groups, recipe, same_bits, sample, state, tiny_policy

ALL = {"type": "grpo", "kl_weight": 0.1}  # needs every reference


def rows_of(num: int = 6, max_tokens: int = 60) -> list[PackedRow]:
    rng = np.random.default_rng(3)
    tokens = [rng.integers(3, 40, rng.integers(5, 40)) for _ in range(num)]
    return pack_rows(tokens, [np.arange(len(each)) > 1 for each in tokens], max_tokens)


def gradient(policy: Policy, options: PassOptions) -> tuple[float, Tensor]:
    """The sum of all log-probabilities, and its gradient by all weights."""
    policy.model.zero_grad()
    with Passes(policy.model, options, Ranks()) as passes:
        values = [passes(row) for row in rows_of()]
        total = torch.cat(values).sum()
        total.backward()
    return total.item(), torch.cat([weight.grad.flatten() for weight in policy.model.parameters()])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layers_that_are_computed_again_give_the_same_gradient(precision: Any) -> None:
    kept, again = (gradient(tiny_policy(), PassOptions(precision, recomputes)) for recomputes in (False, True))
    assert kept[0] == again[0]
    assert torch.equal(kept[1], again[1])


def test_layers_that_are_computed_again_keep_little(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for recomputes in (False, True):
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        policy = tiny_policy(num_layers=6)
        assert not policy.model.training
        with Passes(policy.model, PassOptions(recomputes_layers=recomputes), Ranks()) as passes:
            (row,) = rows_of(max_tokens=1000)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                passes(row)
        sizes.append(sum(kept.values()) - sum(weight.nbytes for weight in policy.model.parameters()))
    assert sizes[1] < sizes[0] / 4


def test_bf16_computes_in_a_copy_and_the_policy_stays_float32() -> None:
    (exact, expected), (found, rounded) = (gradient(tiny_policy(), PassOptions(each)) for each in ("fp32", "bf16"))
    assert found == pytest.approx(exact, rel=1e-3)
    assert found != exact
    assert rounded.dtype == torch.float32
    assert (rounded - expected).norm() < 0.02 * expected.norm()


def test_bf16_follows_the_optimiser_and_holds_nothing_between_two_batches() -> None:
    policy, (row, *_) = tiny_policy(), rows_of()
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=1e-3)
    passes = Passes(policy.model, PassOptions("bf16"), Ranks())
    passes.follow(optimizer)
    with passes:
        before = passes(row)
        (-before.sum()).backward()
        optimizer.step()
        after = passes(row).detach()
    assert after.sum() > before.sum()
    assert sum(weight.nbytes for weight in passes.model.parameters()) == 0
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.zero_()  # as a checkpoint that is loaded
    with passes:
        assert passes(row).tolist() == pytest.approx([-np.log(45)] * len(row.scored_S), rel=1e-3)


@pytest.mark.parametrize("recomputes", [False, True])
def test_a_mixture_of_experts_has_the_gradient_of_its_own_forward_pass(recomputes: bool) -> None:
    policy = Policy(tiny("qwen3_moe"), tiny_policy().tokenizer)
    plain = copy.deepcopy(policy.model)
    plain.set_attn_implementation("eager")
    with Passes(policy.model, PassOptions(recomputes_layers=recomputes), Ranks()) as passes:
        for row in rows_of():
            passes(row).sum().backward()
            tokens, lengths = row.tokens_T.split(list(row.layout.lengths)), row.layout.lengths
            ends = np.cumsum([0, *lengths])
            for number, ids in enumerate(tokens):
                logprobs = plain(ids[None], use_cache=False).logits[0].log_softmax(-1)
                mine = row.sequence_S == number
                places = row.scored_S[mine] - int(ends[number])
                logprobs[places, row.targets_S[mine]].sum().backward()
    expected = dict(plain.named_parameters())
    for name, weight in policy.model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name].grad, atol=2e-3, rtol=1e-3)
    assert any(
        "gate.weight" in name and weight.grad.abs().max() > 0 for name, weight in policy.model.named_parameters()
    )


@contextmanager
def small_card(policy: Policy, max_tokens: int, *, backward: bool) -> Iterator[list[int]]:
    """As on a card with room for so many tokens: the second layer, or its gradient, has none for more."""
    failed: list[int] = []

    def check(module: object, inputs: tuple[Tensor, ...], *_: object) -> None:
        num_tokens = inputs[0].shape[1]
        if num_tokens > max_tokens:
            failed.append(num_tokens)
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {num_tokens} MiB.\nMore is said here.")

    def on_output(module: object, inputs: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda grad: check(module, (grad,)) if grad is not None else None)

    # The first layer's output: when its gradient is asked for, later layers have added theirs already.
    layer = decoder_layers(policy.model)[0]
    handle = layer.register_forward_hook(on_output) if backward else layer.register_forward_pre_hook(check)
    try:
        yield failed
    finally:
        handle.remove()


@pytest.mark.parametrize("backward", [False, True])
def test_a_row_without_room_is_cut_and_the_step_is_the_same(backward: bool, caplog: pytest.LogCaptureFixture) -> None:
    setting: dict[str, Any] = {
        "objective": ALL, "optimizer": "sgd", "learning_rate": 0.1, "steps_per_iteration": 2, "epochs_per_iteration": 2
    }  # fmt: skip
    expected, metrics = tiny_policy(), []
    metrics.append(Learner(expected, recipe(**setting, microbatch_tokens=10_000)).train(0, groups(1)))
    policy = tiny_policy()
    learner = Learner(policy, recipe(**setting, microbatch_tokens=10_000))
    with small_card(learner.policy, 60, backward=backward) as failed:
        metrics.append(learner.train(0, groups(1)))
        first = len(failed)
        learner.train(1, [])
    assert failed[0] > failed[1] > 60
    assert len(failed) == first  # what was learnt about the card is kept
    torch.testing.assert_close(state(policy), state(expected), atol=2e-6, rtol=1e-3)
    del metrics[0]["train_seconds"], metrics[0]["tokens_per_second"]
    assert {name: metrics[1][name] for name in metrics[0]} == pytest.approx(metrics[0], rel=1e-3, abs=1e-5)
    said = [each.getMessage() for each in caplog.records if "has no room" in each.getMessage()]
    assert said[0].startswith(f"a row of {failed[0]} tokens has no room (CUDA out of memory. Tried to allocate")
    assert f"rows have at most {failed[0] // 2} from now on" in said[0]


def test_a_sequence_that_has_no_room_alone_fails_in_words() -> None:
    batch = [TrainingGroup("g", [sample(np.random.default_rng(0), score, 5, 50) for score in (1.0, 0.0)])]
    policy = tiny_policy()
    before = state(policy)
    with small_card(policy, 30, backward=True), pytest.raises(InvalidInputError) as failure:
        Learner(policy, recipe()).train(0, batch)
    assert re.match(
        r"one sequence of 54 tokens alone has no room \(CUDA out of memory.*MiB.\): set ", str(failure.value)
    )
    for key in ('activation_checkpointing = "layers"', "rollout.max_tokens", "[trainer.adapter]", "--trainer-ranks"):
        assert key in str(failure.value)
    assert same_bits(before, state(policy))


def test_an_optimiser_that_has_no_room_fails_in_words() -> None:
    learner = Learner(tiny_policy(), recipe())

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    learner.optimizer.register_step_pre_hook(full)
    with pytest.raises(InvalidInputError, match=r"the optimiser's state has no room \(CUDA out of memory.\): set"):
        learner.train(0, groups(0))


def test_several_ranks_cannot_cut_a_row() -> None:
    learner = Learner(tiny_policy(), recipe())
    learner._ranks = Ranks(size=2)
    (learner._row,) = rows_of(max_tokens=1000)
    with pytest.raises(InvalidInputError, match=r"a row of \d+ tokens has no room .*lower trainer.microbatch_tokens"):
        learner._shorten_rows([], "full")
    learner._ranks = Ranks(1, 2)
    with pytest.raises(
        RankLostError, match="a row of"
    ):  # this process ends, so that the first one does not wait for it
        learner._shorten_rows([], "full")
