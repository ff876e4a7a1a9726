"""What every engine must do, in the same words for each: with the same weights it writes what the others write."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from perilune.api.trajectory.v1.trajectory_pb2 import ENDING_ABORTED, ENDING_LENGTH, ENDING_REPETITION, ENDING_STOP
from perilune.errors import WeightStreamError
from services.rollout.engines.base import Generated, SampleRequest, Sampling, Span
from services.rollout.repetition import Cycle, Rule
from tests.conformance.conftest import llama
from tests.unit.rollout.tiny import EOS, PATIENCE_S, WORDS, Caller, logprobs, raw_tensors, recomputed, response, sample

GREEDY = Sampling(temperature=0)
# Nats: float32 on other kernels, over logits of this size. A wrong token, weight or position is off by more than 0.1.
TOLERANCE = 2e-3


def prompts(count: int) -> list[list[int]]:
    random = np.random.default_rng(1)
    return [random.integers(4, len(WORDS), random.integers(1, 40)).tolist() for _ in range(count)]


def generated_greedily(model: PreTrainedModel, prompt: Sequence[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count)
    return output[0, len(prompt) :].tolist()


def endless(model: PreTrainedModel, wanted: int) -> list[list[int]]:
    """Prompts whose greedy response doesn't end by itself."""
    free = (prompt for prompt in prompts(200) if EOS not in generated_greedily(model, prompt, 80))
    return list(itertools.islice(free, wanted))


def test_logprobs_are_those_of_a_plain_forward_pass(caller: Caller, model: PreTrainedModel) -> None:
    generated = caller.generate([sample(str(i), prompt, 40, index=i) for i, prompt in enumerate(prompts(24))])
    assert sum(len(response(each)) for each in generated.values()) > 200
    for each in generated.values():
        assert np.abs(logprobs(each) - recomputed(model, each)).max() < TOLERANCE
        assert np.array_equal(logprobs(each), logprobs(each, full=False))  # the whole distribution was sampled from


def test_both_logprobs_where_the_distribution_is_cut(caller: Caller, model: PreTrainedModel) -> None:
    cut = Sampling(temperature=0.7, top_k=4)
    each = caller.generate([sample("cut", [5, 9, 31], 40, cut)])["cut"]
    assert np.abs(logprobs(each) - recomputed(model, each)).max() < TOLERANCE
    tokens = torch.tensor([[5, 9, 31, *response(each)]])
    with torch.no_grad():
        scaled = model(tokens).logits[0, 2:-1] / 0.7
    kept = scaled.masked_fill(scaled < scaled.topk(4).values[:, -1:], -torch.inf).log_softmax(-1)
    expected = kept.gather(1, tokens[0, 3:, None]).squeeze(1).numpy()
    assert np.abs(logprobs(each, full=False) - expected).max() < TOLERANCE


def test_greedy_writes_what_generate_writes(caller: Caller, model: PreTrainedModel) -> None:
    wanted = {str(i): generated_greedily(model, prompt, 30) for i, prompt in enumerate(prompts(12))}
    generated = caller.generate([sample(str(i), prompt, 30, GREEDY) for i, prompt in enumerate(prompts(12))])
    assert {name: response(each) for name, each in generated.items()} == wanted
    assert {name: each.ending == ENDING_STOP for name, each in generated.items()} == {
        name: EOS in tokens for name, tokens in wanted.items()
    }


def test_a_group_shares_its_prompt_and_nothing_else(caller: Caller) -> None:
    """More samples than the engine has places, too."""
    group = [sample(str(index), [5, 9, 31] * 12, 30, index=index) for index in range(20)]
    together = caller.generate(group)
    assert len({tuple(response(each)) for each in together.values()}) == 20
    alone = caller.generate([group[17]])["17"]
    assert response(alone) == response(together["17"])


def test_limits(caller: Caller, model: PreTrainedModel) -> None:
    assert caller.engine.max_context == 128
    prompt = endless(model, 1)[0]
    room = 128 - len(prompt)
    written = generated_greedily(model, prompt, 80)
    samples = [sample("short", prompt, 7, GREEDY), sample("none", [5] * 128, 9), sample("long", prompt, 500, GREEDY)]
    generated = caller.generate(samples)
    assert response(generated["short"]) == written[:7]
    assert generated["short"].ending == ENDING_LENGTH
    assert (generated["none"].ending, generated["none"].spans) == (ENDING_LENGTH, ())
    longest = response(generated["long"])
    assert longest[:80] == written
    assert len(longest) == room or longest[-1] == EOS


def test_a_stop_text_ends_the_response_and_stays_in_it(caller: Caller, model: PreTrainedModel) -> None:
    prompt = endless(model, 1)[0]
    written = generated_greedily(model, prompt, 40)
    words = [WORDS[token] for token in written]
    text = " ".join(words[2:4])  # across two tokens: only the second completes it
    end = next(i for i in range(1, len(words)) if text in " ".join(words[: i + 1]))
    stopped = caller.generate([sample("stop", prompt, 40, Sampling(temperature=0, stop=("never", text)))])["stop"]
    assert response(stopped) == written[: end + 1]
    assert stopped.ending == ENDING_STOP


def interrupted(caller: Caller, samples: Sequence[SampleRequest], after: int) -> dict[str, Generated]:
    """The samples, each interrupted when it has at least so many tokens."""
    caller.delivered = []
    counts = dict.fromkeys((each.id for each in samples), 0)

    def watch(name: str, span: Span) -> None:
        counts[name] += len(span.tokens)
        if counts[name] >= after:
            caller.engine.interrupt([name])

    caller.engine.submit(
        [
            SampleRequest(
                each.id, each.tokens, each.max_new_tokens, each.sampling, watch=lambda s, n=each.id: watch(n, s)
            )
            for each in samples
        ]
    )
    return {each.sample.id: each for each in caller.wait_for(len(samples))}


def test_interrupted_and_continued_is_as_if_it_had_not_been(caller: Caller, model: PreTrainedModel) -> None:
    starts = {str(i): prompt for i, prompt in enumerate(endless(model, 4))}
    heads = interrupted(caller, [sample(name, prompt, 80, GREEDY) for name, prompt in starts.items()], after=5)
    assert {each.ending for each in heads.values()} == {ENDING_ABORTED}
    assert all(5 <= len(response(each)) < 80 for each in heads.values())
    tails = caller.generate(
        [
            sample(name, [*prompt, *response(heads[name])], 80 - len(response(heads[name])), GREEDY)
            for name, prompt in starts.items()
        ]
    )
    for name, prompt in starts.items():
        assert response(heads[name]) + response(tails[name]) == generated_greedily(model, prompt, 80)


def test_unknown_samples_cannot_be_interrupted(caller: Caller) -> None:
    caller.engine.interrupt(["unknown"])
    assert len(response(caller.generate([sample("after", [5, 9], 1)])["after"])) == 1


def test_a_watched_sample_shows_its_tokens_as_they_come(caller: Caller) -> None:
    seen: list[Span] = []
    watched = SampleRequest("watched", np.array([5, 9, 31], dtype=np.int32), 30, Sampling(), seed=3, watch=seen.append)
    each = caller.generate([watched])["watched"]
    assert [token for span in seen for token in span.tokens.tolist()] == response(each)
    assert np.array_equal(np.concatenate([span.full_logprobs for span in seen]), logprobs(each))


def test_a_version_is_swapped_in_at_a_token_boundary(caller: Caller, model: PreTrainedModel) -> None:
    newer = llama(seed=1)
    started = threading.Event()
    caller.delivered = []
    caller.engine.submit(
        [
            SampleRequest(
                str(i), np.array([5 + i], dtype=np.int32), 120, Sampling(), seed=i, watch=lambda _: started.set()
            )
            for i in range(8)
        ]
    )
    assert started.wait(PATIENCE_S)
    caller.load(1, newer)
    generated = list(caller.wait_for(8))
    after = caller.generate([sample("after", [5, 9, 31], 20, GREEDY)])["after"]
    caller.load(0, model)

    assert [span.policy.number for span in after.spans] == [1]
    assert response(after) == generated_greedily(newer, [5, 9, 31], 20)
    both = [each for each in generated if len(each.spans) == 2]
    assert both
    for each in both:
        assert [span.policy.number for span in each.spans] == [0, 1]
        assert each.spans[0].policy.digest != each.spans[1].policy.digest
        cut = len(each.spans[0].tokens)
        # Each version's tokens have that version's probabilities, given everything before them: no old cache is read.
        assert np.abs(recomputed(model, each)[:cut] - each.spans[0].full_logprobs).max() < TOLERANCE
        assert np.abs(recomputed(newer, each)[cut:] - each.spans[1].full_logprobs).max() < TOLERANCE


def test_an_engine_that_keeps_contexts_goes_on_from_what_the_older_version_read(
    keeping_caller: Caller, model: PreTrainedModel
) -> None:
    newer, prompt = llama(seed=1), [5, 9, 31, 40] * 8
    started = threading.Event()
    running = SampleRequest(
        "running", np.array(prompt, dtype=np.int32), 90, Sampling(temperature=0.01), watch=lambda _: started.set()
    )
    keeping_caller.delivered = []
    keeping_caller.engine.submit([running])
    assert started.wait(PATIENCE_S)
    keeping_caller.load(1, newer)
    later = sample("later", prompt, 20)  # while the other's context is there to copy
    keeping_caller.engine.submit([later])
    generated = {each.sample.id: each for each in keeping_caller.wait_for(2)}

    assert [span.policy.number for span in generated["later"].spans] == [1]
    assert np.abs(logprobs(generated["later"]) - recomputed(newer, generated["later"])).max() < TOLERANCE
    old, new = generated["running"].spans
    tokens = torch.tensor([prompt + response(generated["running"])])
    num_read = len(prompt) + len(old.tokens) - 1  # the last token that the old version drew is read by the new one
    with torch.no_grad():
        cache = model(tokens[:, :num_read]).past_key_values
        logits = newer(tokens[:, num_read:-1], past_key_values=cache).logits[0]
    expected = logits.log_softmax(-1).gather(1, tokens[0, num_read + 1 :, None]).squeeze(1).numpy()
    assert np.abs(expected - new.full_logprobs).max() < TOLERANCE
    reread = recomputed(newer, generated["running"])[len(old.tokens) :]
    assert np.abs(reread - new.full_logprobs).max() > 10 * TOLERANCE


def test_no_prefix_of_an_older_version_is_reused(caller: Caller, model: PreTrainedModel) -> None:
    newer, prompt = llama(seed=2), [5, 9, 31, 40] * 24  # longer than any engine's cache block that fits the context
    before = caller.generate([sample("before", prompt, 20)])["before"]
    caller.load(2, newer)
    after = caller.generate([sample("after", prompt, 20)])["after"]
    caller.load(0, model)
    assert np.abs(logprobs(before) - recomputed(model, before)).max() < TOLERANCE
    assert np.abs(logprobs(after) - recomputed(newer, after)).max() < TOLERANCE


def test_tensors_of_another_model_are_refused_and_the_old_version_serves(
    caller: Caller, model: PreTrainedModel
) -> None:
    before = response(caller.generate([sample("a", [5, 9, 31], 20, GREEDY)])["a"])
    with pytest.raises(WeightStreamError, match="lacks 1 of the model's tensors"):
        caller.engine.load(caller.policy, raw_tensors(model)[:-1]).result(PATIENCE_S)
    alien = raw_tensors(llama(seed=0, layers=3))
    with pytest.raises(WeightStreamError, match=r"tensor model.layers.2.\S+ of shape \S+ \S+ is not this model's"):
        caller.engine.load(caller.policy, alien).result(PATIENCE_S)
    assert response(caller.generate([sample("a", [5, 9, 31], 20, GREEDY)])["a"]) == before


def test_the_same_stream_of_random_numbers_gives_the_same_tokens(model: PreTrainedModel, caller: Caller) -> None:
    """Across engines, and where a sample is continued: token n is drawn with number n, whoever draws it."""
    samples = [sample(str(i), prompt, 40, index=i) for i, prompt in enumerate(prompts(24))]
    reference = Caller(model)
    wanted = reference.generate(samples)
    reference.engine.close()
    generated = caller.generate(samples)
    # Where a random number falls between the two engines' roundings of a probability, they part.
    same = [response(generated[name]) == response(wanted[name]) for name in wanted]
    assert sum(same) >= 22
    whole = response(generated["0"])
    head = sample("head", prompts(24)[0], len(whole) // 2)
    tail = sample("tail", [*prompts(24)[0], *whole[: len(whole) // 2]], 40 - len(whole) // 2)
    assert response(caller.generate([head])["head"]) + response(caller.generate([tail])["tail"]) == whole


def repeating(model: PreTrainedModel, prompt: Sequence[int]) -> list[int]:
    """Six tokens a b c d e x, such that the greedy token after prompt a b c d e x a b c d e is x again."""
    for start in range(4, len(WORDS) - 5):
        head = list(range(start, start + 5))
        for last in range(4, len(WORDS)):
            if generated_greedily(model, [*prompt, *head, last, *head], 1) == [last]:
                return [*head, last]
    raise AssertionError("the model repeats nothing")


def test_repetition_is_found_across_the_border_of_two_parts(caller: Caller, model: PreTrainedModel) -> None:
    prompt = [5, 9, 31]
    cycle = repeating(model, prompt)
    sampling = Sampling(temperature=0, repetition=Rule(min_tokens=6, min_repeats=1))
    tokens = np.array([*prompt, *cycle, *cycle[:5]])
    continued = caller.generate([SampleRequest("continued", tokens, 20, sampling, response_start=len(prompt))])[
        "continued"
    ]
    assert (response(continued), continued.ending) == (cycle[5:], ENDING_REPETITION)
    assert continued.repetition == Cycle(start=6, period=6)
    # Where all of it is prompt, nothing of the response is a copy.
    fresh = caller.generate([SampleRequest("fresh", tokens, 5, sampling)])["fresh"]
    assert fresh.ending != ENDING_REPETITION


def test_a_stop_text_across_the_border_of_two_parts_ends_the_response(caller: Caller, model: PreTrainedModel) -> None:
    prompt = endless(model, 1)[0]
    written = generated_greedily(model, prompt, 40)
    text = " ".join(WORDS[token] for token in written[2:4])
    sampling, tokens = Sampling(temperature=0, stop=(text,)), np.array(prompt + written[:3])
    continued = caller.generate([SampleRequest("continued", tokens, 20, sampling, response_start=len(prompt))])[
        "continued"
    ]
    assert (response(continued), continued.ending) == (written[3:4], ENDING_STOP)
    # Where all of it is prompt, its end is no part of the response.
    fresh = caller.generate([SampleRequest("fresh", tokens, 20, sampling)])["fresh"]
    assert response(fresh)[:5] == written[3:8]
