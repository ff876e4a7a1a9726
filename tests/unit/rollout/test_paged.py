"""The paged layout of the torch engine, as a card has it, on a CPU: it writes what slots write."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.launches import Launches, count_step, small_qwen, steps
from perilune.errors import SettingsError
from perilune.models.attention import causal_attention
from perilune.recipe import TorchEngineTable
from services.rollout.engines import sampling
from services.rollout.engines.base import SampleRequest, Sampling
from services.rollout.engines.embedded import layouts
from services.rollout.engines.embedded.fusion import fuse_norms, fuse_projections
from services.rollout.engines.embedded.model import build_model, stage_tensors, swap_tensors
from services.rollout.engines.embedded.paged import kernels
from services.rollout.engines.embedded.paged.decoder import PagedDecoder
from services.rollout.engines.embedded.paged.kernels import PLAIN, Tiles
from services.rollout.engines.embedded.paged.recorded import RecordedSteps, bucket_of, bucket_sizes
from services.rollout.engines.probe import check_decoding
from tests.unit.families import tiny
from tests.unit.rollout.tiny import Caller, logprobs, model_files, raw_tensors, recomputed, response, sample, tiny_llama

PAGED = TorchEngineTable(cache="paged")


def mixed_samples(count: int, longest: int = 40) -> list[SampleRequest]:
    """Groups of four with prompts and lengths of all sizes."""
    random = np.random.default_rng(0)
    prompts = [random.integers(4, 60, random.integers(1, 40)) for _ in range(count // 4)]
    return [
        sample(f"{group}/{index}", prompt, int(random.integers(1, longest)), index=index)
        for group, prompt in enumerate(prompts)
        for index in range(4)
    ]


@pytest.mark.slow
def test_both_layouts_draw_the_same_tokens() -> None:
    samples = mixed_samples(24)
    samples[5] = replace(samples[5], sampling=Sampling(temperature=0.7, top_p=0.9, top_k=20))
    samples[6] = replace(samples[6], sampling=Sampling(temperature=0))
    found = []
    for cache in ("slots", "paged"):
        caller = Caller(tiny_llama(), options=TorchEngineTable(cache=cache))
        found.append(caller.generate(samples))
        caller.engine.close()
    slots, paged = found
    assert {name: response(each) for name, each in paged.items()} == {n: response(each) for n, each in slots.items()}
    for name, each in paged.items():
        np.testing.assert_allclose(logprobs(each), logprobs(slots[name]), atol=1e-4)
        np.testing.assert_allclose(logprobs(each, full=False), logprobs(slots[name], full=False), atol=1e-4)


# Sinks, windows, experts, latent attention whose values have a size of their own, learned positions.
@pytest.mark.slow
@pytest.mark.parametrize("family", ["deepseek_v3", "gemma3_text", "gpt2", "gpt_oss", "mistral", "qwen2", "qwen3_moe"])
def test_a_family_in_pages_is_right(family: str) -> None:
    model = tiny(family)
    caller = Caller(model, options=PAGED)
    generated = caller.generate(mixed_samples(12, longest=25))
    caller.engine.close()
    for each in generated.values():
        assert np.abs(logprobs(each) - recomputed(model, each)).max() < 1e-4


def test_too_few_blocks_delay_samples_and_change_nothing() -> None:
    """2 layers x 2 heads x 8 numbers x 4 bytes, keys and values: 256 bytes a token, so 16 blocks of 16 tokens."""
    model = tiny_llama()
    caller = Caller(model, max_running=16, kv_cache_bytes=256 * 256, options=PAGED)
    samples = [sample(f"{i}", [5, i + 4], 100, index=i) for i in range(8)]
    generated = caller.generate(samples)
    capacity = caller.engine.capacity()
    caller.engine.close()
    assert not any(each.error for each in generated.values())
    assert sum(len(response(each)) for each in generated.values()) == capacity.num_generated_tokens
    for each in generated.values():
        assert np.abs(logprobs(each) - recomputed(model, each)).max() < 1e-4


def paged_decoder(model: Any, max_running: int = 8, kv_cache_bytes: int = 1 << 22) -> PagedDecoder:
    return layouts.in_pages(build_model(model_files(model), raw_tensors(model)), max_running, kv_cache_bytes)


def test_a_card_without_memory_for_a_pass_reads_again_in_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    forward, refused = PagedDecoder._read_and_decode, []

    def first_fails(self: PagedDecoder, plan: Any, size: int) -> None:
        if plan.num_tokens > 100:
            refused.append(plan.num_tokens)
            raise torch.OutOfMemoryError
        forward(self, plan, size)

    monkeypatch.setattr(PagedDecoder, "_read_and_decode", first_fails)
    caller = Caller(model, options=PAGED)
    generated = caller.generate([sample(str(i), [5 + i] * 60, 10) for i in range(6)])
    caller.engine.close()
    assert refused
    for each in generated.values():
        assert np.abs(logprobs(each) - recomputed(model, each)).max() < 1e-4


# Kernels.


def attention_of_two(random: torch.Generator, each: kernels.Kernels, window: int | None, sinks: Tensor | None) -> Any:
    """A sample of 21 tokens, the last 6 of which attend, and the attention of all of them by the other function."""
    query, key, value = (torch.randn(heads, 21, 8, generator=random) for heads in (4, 2, 2))
    pages = [torch.full((4, 16, 2, 8), torch.nan) for _ in range(2)]
    blocks = torch.tensor([3, 1])
    places = blocks.repeat_interleave(16)[:21] * 16 + torch.arange(21) % 16
    each.store(key, value, *pages, None, places)
    tiles = torch.tensor([[0, 15, 15, 4], [0, 19, 19, 2]], dtype=torch.int32)
    out = torch.zeros(21, 4, 8)
    each.attend(query, *pages, Tiles(blocks[None].int(), tiles, 4), 0.3, window, sinks, out)
    whole = causal_attention(query[None], key[None], value[None], 0.3, window, sinks)[0]
    return out[15:], whole.transpose(0, 1)[15:]


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_attention_in_pages_is_plain_attention(window: int | None, has_sinks: bool) -> None:
    random = torch.Generator().manual_seed(1)
    found, expected = attention_of_two(random, PLAIN, window, torch.randn(4, generator=random) if has_sinks else None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_kernels_for_a_card_compute_what_the_plain_ones_do() -> None:
    """In Triton's interpreter, which must be asked for before Triton is imported."""
    pytest.importorskip("triton", minversion="3.9", reason="pip install 'triton>=3.9': its interpreter runs kernels")
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.rollout.interpreted_kernels"],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_random_numbers_are_the_same_on_a_device_as_on_the_host() -> None:
    streams = np.array([sampling.stream_of(seed, index) for seed in range(20) for index in range(5)])
    positions = np.arange(100) * 977
    on_device = sampling.uniforms_of(torch.from_numpy(streams.view(np.int64)), torch.from_numpy(positions))
    assert np.array_equal(on_device.numpy(), sampling.uniforms(streams, positions))


# What is launched.


def test_a_step_in_pages_launches_a_third_of_what_one_in_slots_does_and_waits_for_nothing() -> None:
    few, more = ((steps(layers, 256)) for layers in (1, 2))
    in_slots, in_pages = (two.counts.total() - one.counts.total() for one, two in zip(few, more, strict=True))
    assert in_pages <= 22  # a layer's: four products, two norms, storing, attention, positions, residuals, gate
    assert in_slots > 3 * in_pages
    assert more[1].num_waits == 0


def test_a_step_of_few_rows_launches_as_much_as_one_of_many() -> None:
    counts = []
    for rows in (3, 200):
        launches = Launches()
        counts.append(count_step(layouts.in_pages(small_qwen(1), 256, 1 << 24, PLAIN), rows, launches).total())
    assert counts[0] == counts[1]


def test_steps_are_padded_to_few_sizes_and_repeat_the_same_function() -> None:
    sizes = bucket_sizes(256)
    assert (sizes[0], sizes[-1]) == (1, 256)
    assert len(sizes) < 20
    assert [bucket_of(rows, sizes) for rows in (1, 3, 17, 129, 256)] == [1, 4, 32, 160, 256]
    done: list[int] = []
    repeated = RecordedSteps(records=False)
    for number in range(3):
        repeated.run(8, lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == [0, 1, 2]


def test_rows_lie_in_places_that_never_move() -> None:
    """A recorded step reads and writes there, whatever samples run."""
    decoder = paged_decoder(tiny_llama())
    places = [tensor.data_ptr() for tensor in (decoder._rows.tokens, decoder._rows.table, decoder._rows._drawn)]
    launches = Launches()
    count_step(decoder, 5, launches)
    count_step(decoder, 3, launches)
    assert places == [tensor.data_ptr() for tensor in (decoder._rows.tokens, decoder._rows.table, decoder._rows._drawn)]


# Fused layers.


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text", "qwen3_moe"])
@torch.inference_mode()
def test_fused_layers_compute_the_same_also_under_a_new_version(family: str) -> None:
    model, newer = tiny(family), tiny(family, seed=1)
    files = model_files(model)
    fused = build_model(files, raw_tensors(model))
    check_decoding(fused)
    fused.set_attn_implementation("eager")
    assert fuse_projections(fused) >= 2
    num_norms = fuse_norms(fused, PLAIN.rms_norm)
    assert (num_norms == 0) == (family == "gemma3_text")  # whose norms add one to the weight
    ids = torch.arange(4, 20)[None]
    torch.testing.assert_close(fused(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    places = {name: tensor.data_ptr() for name, tensor in fused.state_dict().items()}
    swap_tensors(fused, stage_tensors(fused, raw_tensors(newer)), in_place=True)
    assert places == {name: tensor.data_ptr() for name, tensor in fused.state_dict().items()}
    torch.testing.assert_close(fused(ids).logits, newer(ids).logits, atol=1e-5, rtol=1e-5)


# Memory.


def test_a_card_has_room_for_what_the_next_version_and_a_pass_leave() -> None:
    model = build_model(model_files(tiny_llama()), raw_tensors(tiny_llama()))
    of_use = 8 * 128 * 256  # samples, tokens of the context, bytes of each
    assert layouts.card_room(model, 8 << 30, 8192, 8) == of_use
    with pytest.raises(SettingsError, match=r"the card has 0\.0 GiB free.*PERILUNE_KV_CACHE_GIB"):
        layouts.card_room(model, 8 << 20, 8192, 8)
