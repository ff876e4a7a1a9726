"""The torch engine samples a model if it decodes what one forward pass computes; else it refuses it by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perilune.errors import InvalidInputError
from services.rollout.engines.embedded.model import build_model
from services.rollout.engines.probe import check_decoding
from tests.unit.families import FAMILIES, tiny
from tests.unit.rollout.tiny import Caller, logprobs, model_files, raw_tensors, recomputed, sample

REFUSED = {
    "diffllama",  # attends to halves of its values
    "falcon",
    "gemma2",  # caps scores
    "gptj",
    "granitemoehybrid",
    "lfm2",
    "llama4_text",
    "mamba",
    "minimax",
    "nemotron",
}
KINDS = ["cohere2", "deepseek_v3", "gemma3_text", "gpt2", "gpt_oss", "mistral", "qwen3_moe"]


@pytest.mark.parametrize("family", sorted(REFUSED))
@pytest.mark.parametrize("std", [0.2, None], ids=["spread", "new"])
def test_a_family_that_would_be_wrong_is_refused_by_name(family: str, std: float | None) -> None:
    model = tiny(family, std)
    with pytest.raises(InvalidInputError, match=type(model).__name__):
        Caller(model)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - REFUSED - set(KINDS)))
def test_a_family_with_plain_attention_is_taken(family: str) -> None:
    for std in (0.2, None):
        model = tiny(family, std)
        check_decoding(build_model(model_files(model), raw_tensors(model)))


@pytest.mark.parametrize("family", KINDS)
def test_what_is_taken_is_right(family: str) -> None:
    model, random = tiny(family), np.random.default_rng(0)
    caller = Caller(model)
    prompts = [random.integers(4, 60, length) for length in (1, 3, 9, 14, 20)]
    generated = caller.generate([sample(str(i), p, 25, index=j) for i, p in enumerate(prompts) for j in range(2)])
    caller.engine.close()
    for each in generated.values():
        assert np.abs(logprobs(each) - recomputed(model, each)).max() < 5e-5


def test_the_probe_of_a_model_in_half_precision_changes_nothing() -> None:
    model = tiny("llama").to(torch.bfloat16)
    built = build_model(model_files(model), raw_tensors(model.float())).to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    check_decoding(built)
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())


def test_a_config_of_no_language_model_is_refused() -> None:
    model = tiny("llama")
    files = model_files(model) | {"config.json": b'{"model_type": "no-such-kind"}'}
    with pytest.raises(InvalidInputError, match="no-such-kind"):
        build_model(files, raw_tensors(model))
