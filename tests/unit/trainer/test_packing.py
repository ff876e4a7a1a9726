"""Rows hold every sequence once and inside the limit; packed log-probs are those of each sequence on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, Qwen3Config, Qwen3ForCausalLM

from perilune.errors import InvalidInputError
from services.trainer.policy import logprobs
from services.trainer.policy.logprobs import sequence_logprobs, token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_row, pack_rows, plan_rows
from tests.unit.trainer.models import plain_logprobs, tiny_policy


def test_a_plan_by_hand() -> None:
    # By falling length: 9 alone (over the limit), 4 + 3, 2 + 1.
    assert plan_rows([3, 9, 1, 4, 2], max_tokens=7) == [[1], [3, 0], [4, 2]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 80))
def test_every_sequence_is_in_one_row_and_rows_keep_the_limit(lengths: list[int], max_tokens: int) -> None:
    rows = plan_rows(lengths, max_tokens)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[index] for index in row) <= max_tokens for row in rows)


def test_a_row_by_hand() -> None:
    tokens = [np.array([5, 6, 7, 8]), np.array([9, 3])]
    scored = [np.array([False, False, True, True]), np.array([False, True])]
    row = pack_row([0, 1], tokens, scored)
    assert row.tokens_T.tolist() == [5, 6, 7, 9]  # the last token of a sequence is only ever a target
    assert row.positions_T.tolist() == [0, 1, 2, 0]
    assert row.scored_S.tolist() == [1, 2, 3]
    assert row.targets_S.tolist() == [7, 8, 3]
    assert row.sequence_S.tolist() == [0, 0, 1]
    # 3 tokens and 1 token differ by more than padding is worth.
    assert [(block.num_sequences, block.length, block.begin, block.end) for block in row.layout.blocks] == [
        (1, 3, 0, 3),
        (1, 1, 3, 4),
    ]


def _sequences(num: int, longest: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 40, rng.integers(2, longest)) for _ in range(num)]


def _qwen() -> Policy:
    config = Qwen3Config(
        vocab_size=75, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    return Policy(Qwen3ForCausalLM(config), tiny_policy().tokenizer)


def _gemma_with_sliding_window() -> Policy:
    config = Gemma3TextConfig(
        vocab_size=75, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    return Policy(Gemma3ForCausalLM(config), tiny_policy().tokenizer)


@pytest.mark.parametrize("make", [tiny_policy, _qwen, _gemma_with_sliding_window])
def test_packed_sequences_do_not_see_each_other(make) -> None:
    policy, sequences = make(), _sequences(20)
    scored = [np.arange(len(tokens)) > 0 for tokens in sequences]
    expected = plain_logprobs(policy, sequences)
    for row in pack_rows(sequences, scored, max_tokens=150):
        with torch.no_grad():
            found = token_logprobs(policy.model, row)
        torch.testing.assert_close(found, torch.cat([expected[index] for index in row.indices]), atol=1e-5, rtol=0)
        sums = sequence_logprobs(found, row)
        torch.testing.assert_close(
            sums, torch.stack([expected[index].sum() for index in row.indices]), atol=1e-4, rtol=1e-6
        )


def test_chunks_of_the_vocabulary_change_neither_values_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, sequences = tiny_policy(), _sequences(6)
    row = pack_row(range(6), sequences, [np.arange(len(tokens)) > 0 for tokens in sequences])

    def values_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        policy.model.zero_grad()
        values = token_logprobs(policy.model, row)
        (values * torch.linspace(-1, 1, len(values))).sum().backward()
        return values.detach(), policy.model.get_output_embeddings().weight.grad.clone()

    whole = values_and_gradient()
    monkeypatch.setattr(logprobs, "chunk_logits", lambda device: 7 * 45)
    torch.testing.assert_close(values_and_gradient(), whole)


def test_a_model_that_caps_its_logits_is_refused() -> None:
    config = Gemma3TextConfig(
        vocab_size=75, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, final_logit_softcapping=0.01,
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="scales or caps its logits"):
        Policy(Gemma3ForCausalLM(config), tiny_policy().tokenizer)
