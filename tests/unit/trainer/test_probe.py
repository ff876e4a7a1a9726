"""A model is trained if a packed row computes what it computes alone; else it is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perilune.errors import InvalidInputError
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_rows
from tests.unit.families import FAMILIES, tiny
from tests.unit.rollout.tiny import tiny_tokenizer
from tests.unit.trainer.models import plain_logprobs

REFUSED = {
    "cohere2",  # scales its logits
    "falcon",
    "gemma2",  # caps scores and logits
    "gptj",
    "granitemoehybrid",
    "lfm2",
    "llama4_text",
    "mamba",
    "minimax",
    "nemotron",
    "granite",  # scales its logits
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("std", [0.2, None], ids=["spread", "new"])
def test_a_family_is_right_or_refused_by_name(family: str, std: float | None) -> None:
    model = tiny(family, std)
    if family in REFUSED:
        with pytest.raises(InvalidInputError, match=type(model).__name__):
            Policy(model, tiny_tokenizer())
        return
    policy, rng = Policy(model, tiny_tokenizer()), np.random.default_rng(0)
    sequences = [rng.integers(3, 60, length) for length in (30, 12, 2, 28, 7)]
    own = plain_logprobs(policy, sequences)
    for row in pack_rows(sequences, [np.arange(len(each)) > 0 for each in sequences], max_tokens=100):
        packed = token_logprobs(model, row)
        assert (packed - torch.cat([own[index] for index in row.indices])).abs().max() < 1e-5


def test_attention_sinks_learn() -> None:
    model = tiny("gpt_oss")
    Policy(model, tiny_tokenizer())
    (row,) = pack_rows([np.arange(3, 20)], [np.arange(17) > 0], max_tokens=100)
    token_logprobs(model, row).sum().backward()
    packed = {name: tensor.grad for name, tensor in model.named_parameters() if "sinks" in name}
    model.zero_grad()
    model.set_attn_implementation("eager")
    tokens = torch.arange(3, 20)[None]
    model(tokens[:, :-1], use_cache=False).logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).sum().backward()
    for name, gradient in packed.items():
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, model.get_parameter(name).grad)


def test_the_probe_leaves_windows_as_they_were() -> None:
    model = tiny("gemma3_text")
    Policy(model, tiny_tokenizer())
    windows = [getattr(module, "sliding_window", None) for module in model.modules()]
    assert model.config.sliding_window == 6
    assert 6 in windows
    assert 4 not in windows


def test_position_frequencies_that_move_with_the_pass_are_refused() -> None:
    table = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 1e4}
    model = tiny("phi3", rope_parameters=table, original_max_position_embeddings=32)
    with pytest.raises(InvalidInputError, match=r"phi3 with LongRoPE .* from 32 tokens on"):
        Policy(model, tiny_tokenizer())


def test_weights_that_are_no_numbers_are_refused() -> None:
    model = tiny("llama")
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    with pytest.raises(InvalidInputError, match="not numbers"):
        Policy(model, tiny_tokenizer())
