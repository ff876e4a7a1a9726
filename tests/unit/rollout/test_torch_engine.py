"""The torch engine with a real tiny Llama: what it writes must be what Hugging Face would."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import ENDING_ABORTED, ENDING_LENGTH, ENDING_STOP
from perilune.errors import InvalidInputError, WeightStreamError
from perilune.recipe import EngineBase, TorchEngineTable
from services.rollout.engines import make_engine
from services.rollout.engines.base import SampleRequest, Sampling
from services.rollout.engines.embedded.model import round_to_int8
from services.rollout.repetition import Rule
from tests.unit.rollout.tiny import (
    EOS,
    WORDS,
    Caller,
    logprobs,
    raw_tensors,
    recomputed,
    response,
    sample,
    spec_of,
    tiny_llama,
)

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_llama()


@pytest.fixture(scope="module")
def caller(model: PreTrainedModel) -> Iterator[Caller]:
    caller = Caller(model)
    yield caller
    caller.engine.close()


def mixed_samples(count: int) -> list[SampleRequest]:
    """Groups of four with prompts and lengths of all sizes: more than eight places hold."""
    random = np.random.default_rng(0)
    prompts = [random.integers(4, len(WORDS), random.integers(1, 20)) for _ in range(count // 4)]
    return [
        sample(f"{group}/{index}", prompt, int(random.integers(1, 60)), index=index)
        for group, prompt in enumerate(prompts)
        for index in range(4)
    ]


def test_greedy_writes_what_generate_writes(caller: Caller, model: PreTrainedModel) -> None:
    prompts = [[5, 9, 31], [8], [40, 41, 42, 43, 44, 45, 46]]
    for name, generated in caller.generate([sample(str(i), p, 30, GREEDY) for i, p in enumerate(prompts)]).items():
        prompt = torch.tensor([prompts[int(name)]])
        expected = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=30)
        assert response(generated) == expected[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize(
    "other",
    [
        lambda: tiny_llama(seed=3),
        lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=len(WORDS), n_positions=128, n_embd=32, n_layer=2, n_head=4)
        ).eval(),
        lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(
                vocab_size=len(WORDS),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
                max_position_embeddings=128,
                sliding_window=6,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            )
        ).eval(),
    ],
    ids=["llama", "gpt2", "gemma3-sliding-window"],
)
def test_logprobs_are_those_of_a_plain_forward_pass(other: object) -> None:
    torch.manual_seed(0)
    policy = other()  # type: ignore[operator]
    caller = Caller(policy)
    generated = caller.generate(mixed_samples(24))
    caller.engine.close()
    for each in generated.values():
        assert np.abs(logprobs(each) - recomputed(policy, each)).max() < 1e-4


def test_more_samples_than_places_all_end_and_depend_on_nobody_else(caller: Caller) -> None:
    samples = mixed_samples(40)
    together = caller.generate(samples)
    assert caller.engine.capacity().max_running == 8
    alone = caller.generate([samples[13]])["3/1"]
    assert response(alone) == response(together["3/1"])
    again = caller.generate(samples[::-1])
    assert all(response(again[name]) == response(together[name]) for name in together)
    assert len({tuple(response(together[f"0/{index}"])[:8]) for index in range(4)}) > 1


@pytest.mark.slow
def test_samples_draw_by_the_policys_probabilities(caller: Caller, model: PreTrainedModel) -> None:
    with torch.no_grad():
        expected = model(torch.tensor([[5, 9]])).logits[0, -1].softmax(-1).numpy()
    generated = caller.generate([sample(str(index), [5, 9], 1, index=index) for index in range(2000)])
    counts = np.bincount([response(each)[0] for each in generated.values()], minlength=len(WORDS))
    # Pearson's chi-squared with 63 degrees of freedom passes 103.4 once in a thousand.
    assert ((counts - 2000 * expected) ** 2 / (2000 * expected)).sum() < 103.4


def test_what_was_sampled_from_is_told_apart_from_the_full_distribution(caller: Caller) -> None:
    generated = caller.generate([sample("a", [5, 9, 31], 20, Sampling(temperature=0.5, top_k=3))])["a"]
    assert (logprobs(generated, full=False) > logprobs(generated)).all()


def test_endings(caller: Caller, model: PreTrainedModel) -> None:
    free = caller.generate([sample(str(index), [5], 60, index=index) for index in range(16)])
    stopped = [each for each in free.values() if EOS in response(each)]
    assert stopped
    assert all(each.ending == ENDING_STOP and response(each).index(EOS) == len(response(each)) - 1 for each in stopped)
    cut = [each for each in free.values() if EOS not in response(each)]
    assert all(each.ending == ENDING_LENGTH and len(response(each)) == 60 for each in cut)
    assert caller.engine.max_context == 128
    full = caller.generate([sample("full", [5] * 120, 100, Sampling(temperature=1, top_k=1))])["full"]
    assert full.ending == ENDING_LENGTH
    assert len(response(full)) == 8
    none = caller.generate([sample("none", [5] * 128, 100)])["none"]
    assert (none.ending, none.spans) == (ENDING_LENGTH, ())


def test_a_stop_text_ends_the_response_and_stays_in_it(caller: Caller) -> None:
    free = response(caller.generate([sample("free", [5], 40, GREEDY)])["free"])
    words = [WORDS[token] for token in free]
    text = " ".join(words[2:4])  # across two tokens: only the second completes it
    end = next(i for i in range(1, len(words)) if text in " ".join(words[: i + 1]))
    stopped = caller.generate([sample("stop", [5], 40, Sampling(temperature=0, stop=("never", text)))])["stop"]
    assert response(stopped) == free[: end + 1]
    assert stopped.ending == ENDING_STOP


def test_a_sample_can_be_continued_elsewhere(caller: Caller) -> None:
    whole = response(caller.generate([sample("whole", [5, 9], 30, Sampling(top_k=20))])["whole"])
    head = response(caller.generate([sample("head", [5, 9], 10, Sampling(top_k=20))])["head"])
    tail = response(caller.generate([sample("tail", [5, 9, *head], 20, Sampling(top_k=20))])["tail"])
    assert head + tail == whole


@pytest.mark.slow
def test_versions_change_under_running_samples(model: PreTrainedModel) -> None:
    caller, newer = Caller(model, max_running=64), tiny_llama(seed=1)
    long = [SampleRequest(f"{i}", np.array([5 + i % 50], dtype=np.int32), 120, Sampling(), seed=i) for i in range(64)]
    caller.engine.submit(long)
    caller.wait_for(1)
    caller.load(1, newer)
    generated = caller.wait_for(len(long))
    caller.engine.close()
    both = [each for each in generated if len(each.spans) == 2]
    assert both
    for each in both:
        assert [span.policy.number for span in each.spans] == [0, 1]
        assert each.spans[0].policy.digest != each.spans[1].policy.digest
        cut = len(each.spans[0].tokens)
        # Each version's tokens have that version's probabilities, given everything before them.
        assert np.abs(recomputed(model, each)[:cut] - each.spans[0].full_logprobs).max() < 1e-4
        assert np.abs(recomputed(newer, each)[cut:] - each.spans[1].full_logprobs).max() < 1e-4


def test_tensors_of_another_model_are_refused_and_the_old_version_serves(
    caller: Caller, model: PreTrainedModel
) -> None:
    tensors = raw_tensors(model)
    before = response(caller.generate([sample("a", [5], 20, GREEDY)])["a"])
    with pytest.raises(WeightStreamError, match="lacks 1 of the model's tensors"):
        caller.engine.load(caller.policy, tensors[:-1]).result(60)
    alien = raw_tensors(GPT2LMHeadModel(GPT2Config(vocab_size=10, n_positions=8, n_embd=8, n_layer=1, n_head=1)))
    with pytest.raises(WeightStreamError, match=r"transformer.wte.weight of shape \(10, 8\) is not this model's"):
        caller.engine.load(caller.policy, alien).result(60)
    assert response(caller.generate([sample("a", [5], 20, GREEDY)])["a"]) == before


def test_interrupted_samples_are_delivered_as_far_as_they_came(model: PreTrainedModel) -> None:
    caller = Caller(tiny_llama(max_position_embeddings=100_000), max_running=2)
    endless = Sampling(temperature=0)
    caller.engine.submit([sample(str(i), [5 + i], 90_000, endless) for i in range(4)])
    caller.engine.interrupt(["0", "1", "2", "3", "unknown"])
    ended = caller.wait_for(4)
    assert {each.sample.id for each in ended} == {"0", "1", "2", "3"}
    assert {each.ending for each in ended} <= {ENDING_ABORTED, ENDING_STOP}
    assert caller.engine.capacity().num_waiting == 0
    caller.engine.close()


@pytest.mark.slow
def test_few_long_samples_run_where_many_short_ones_did(model: PreTrainedModel) -> None:
    # 2 layers x 2 heads x 8 numbers x 4 bytes, keys and values: 256 bytes a token, so 256 tokens fit.
    caller = Caller(model, max_running=16, kv_cache_bytes=256 * 256)
    short = caller.generate([sample(f"s{i}", [5, i + 4], 8, index=i) for i in range(32)])
    long = caller.generate([sample(f"l{i}", [5, i + 4], 110, Sampling(top_k=0), index=i) for i in range(6)])
    caller.engine.close()
    for each in [*short.values(), *long.values()]:
        assert np.abs(logprobs(each) - recomputed(model, each)).max() < 1e-4


class Abacus(EngineBase):
    type: str = "abacus"


def test_an_engine_that_does_not_exist() -> None:
    with pytest.raises(InvalidInputError, match=r"there is no engine 'abacus'; known are .*torch"):
        make_engine(spec_of(tiny_llama(), lambda _: None, options=Abacus()))


def test_an_interrupted_sample_goes_on_as_if_nothing_had_been() -> None:
    """In pieces of seven tokens, with its neighbours changing: the same tokens and log-probabilities as in one go."""
    caller = Caller(tiny_llama())
    try:
        whole = caller.generate([sample("whole", [1, 5, 9], 60)])["whole"]
        tokens, found = [1, 5, 9], []
        while len(found) < len(response(whole)):
            piece = replace(sample("piece", tokens, 7), response_start=3)
            generated = caller.generate([piece, sample("other", [1, 7], 9)])["piece"]
            found += logprobs(generated).tolist()
            tokens = [*tokens, *response(generated)]
        assert tokens[3:] == response(whole)
        np.testing.assert_allclose(found, logprobs(whole), atol=1e-5)
    finally:
        caller.engine.close()


def test_new_weights_in_the_middle_of_a_sample() -> None:
    """Each span's log-probabilities are those of its version on the whole context; nothing is lost or drawn twice."""
    models = [tiny_llama(seed) for seed in range(3)]
    caller = Caller(models[0], max_running=4)
    try:
        samples = [sample(f"s{index}", [1, 5, 9], 100, index=index) for index in range(8)]
        caller.engine.submit(samples)
        for number in (1, 2):
            until_drawn(caller, 40 * number)
            caller.load(number, models[number])
        found = {generated.sample.id: generated for generated in caller.wait_for(8)}
        assert found.keys() == {one.id for one in samples}
        assert len(caller.delivered) == 8
        assert any(len(generated.spans) > 1 for generated in found.values())
        for generated in found.values():
            numbers = [span.policy.number for span in generated.spans]
            assert numbers == sorted(set(numbers))  # one span a version, in order
            start = 0
            for span in generated.spans:
                expected = recomputed(models[span.policy.number], generated)[start : start + len(span.tokens)]
                np.testing.assert_allclose(span.full_logprobs, expected, atol=1e-4)
                start += len(span.tokens)
    finally:
        caller.engine.close()


def until_drawn(caller: Caller, num_tokens: int) -> None:
    deadline = time.monotonic() + 60
    while caller.engine.capacity().num_generated_tokens < num_tokens and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.slow
def test_a_sample_that_repeats_itself_is_ended_and_says_where() -> None:
    """A tiny model without temperature often runs in circles."""
    caller = Caller(tiny_llama())
    try:
        prompts = {f"s{word}": [1, word, 9] for word in range(5, 45)}
        plain = caller.generate([sample(name, prompt, 100, GREEDY) for name, prompt in prompts.items()])
        watching = Sampling(temperature=0, repetition=Rule(min_tokens=12, min_repeats=3))
        watched = caller.generate([sample(name, prompt, 100, watching) for name, prompt in prompts.items()])
        ended = [one for one in watched.values() if one.ending == trajectory.ENDING_REPETITION]
        assert ended
        for one in watched.values():
            assert response(one) == response(plain[one.sample.id])[: len(response(one))]
        for one in ended:
            assert one.repetition is not None
            assert len(response(one)) < len(response(plain[one.sample.id]))
            start, period = one.repetition.start, one.repetition.period
            copied = response(one)[start : start + period]
            assert copied == response(one)[start - period : start]
    finally:
        caller.engine.close()


def test_int8_rounds_every_weight_and_says_what_it_drew_with() -> None:
    model = tiny_llama()
    rounded = copy.deepcopy(model)
    round_to_int8(rounded)
    for name, parameter in rounded.named_parameters():
        if parameter.dim() == 2:
            scale = parameter.abs().amax(1, keepdim=True) / 127
            np.testing.assert_allclose((parameter / scale).detach(), (parameter / scale).detach().round(), atol=1e-3)
            assert not torch.equal(parameter, dict(model.named_parameters())[name])
    caller = Caller(model, options=TorchEngineTable(quantization="int8"))
    try:
        generated = caller.generate([sample("s", [1, 5, 9], 20)])["s"]
        np.testing.assert_allclose(logprobs(generated), recomputed(rounded, generated), atol=1e-4)
        assert np.abs(logprobs(generated) - recomputed(model, generated)).max() > 1e-3
    finally:
        caller.engine.close()


def test_a_sample_that_has_ended_is_not_interrupted_any_more() -> None:
    """It waits in its row for the next admission, and was delivered already."""
    caller = Caller(tiny_llama(), max_running=16)
    try:
        samples = [sample(f"s{index}", [1, 5, 9], 1 + index, index=index) for index in range(16)]
        caller.engine.submit(samples)
        for _ in range(50):
            caller.engine.interrupt([one.id for one in samples[:8]])
        found = caller.wait_for(16)
        caller.generate([sample("last", [1, 5], 3)])
        assert sorted(one.sample.id for one in found[:16]) == sorted(one.id for one in samples)
    finally:
        caller.engine.close()
