"""Models that see, in the trainer's rows and in the engine: both compute what the model's own pass does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from perilune.models.probe import plain_attention
from perilune.models.vision import PlacedImage, VisionReader
from perilune.models.vision.probe import own_arguments
from perilune.recipe import TorchEngineTable
from services.rollout.engines.base import Generated, SampleRequest, Sampling
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_rows
from tests.unit.rollout import tiny
from tests.unit.vision.families import FAMILIES, picture

GAP = 1e-4  # nats


@pytest.fixture(scope="module", params=FAMILIES)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return FAMILIES[request.param](tmp_path_factory.mktemp("model"))


def asked(
    vision: VisionReader, pictures: list[bytes], words: str = "w3 w4"
) -> tuple[list[int], tuple[PlacedImage, ...]]:
    """A prompt that shows pictures and then says something; without them, that alone."""
    seen = [vision.see(each) for each in pictures]
    parts = [*({"type": "image"} for _ in seen), {"type": "text", "text": words}]
    ids = vision.prompt([{"role": "user", "content": parts}], seen)
    return ids, vision.place(ids, seen)


def sample(name: str, vision: VisionReader, pictures: list[bytes], **changes: object) -> SampleRequest:
    ids, placed = asked(vision, pictures)
    given: dict[str, object] = {"sampling": Sampling(), "max_new_tokens": 12, "seed": 5} | changes
    return SampleRequest(id=name, tokens=np.array(ids, np.int32), images=placed, **given)  # type: ignore[arg-type]


def trained_logprobs(policy: Policy, all_generated: list[Generated]) -> list[np.ndarray]:
    """The trainer's log-probabilities of what was drawn, of all samples in packed rows."""
    tokens = [np.concatenate([g.sample.tokens, *(s.tokens for s in g.spans)]).astype(np.int64) for g in all_generated]
    scored = [np.arange(len(ids)) >= len(g.sample.tokens) for ids, g in zip(tokens, all_generated, strict=True)]
    found: dict[int, np.ndarray] = {}
    for row in pack_rows(tokens, scored, 200, [g.sample.images for g in all_generated]):
        with torch.no_grad():
            values = token_logprobs(policy.model, row).numpy()
        for place, index in enumerate(row.indices):
            found[index] = values[row.sequence_S.numpy() == place]
    return [found[number] for number in range(len(tokens))]


@pytest.mark.parametrize("cache", ["slots", "paged"])
def test_engine_and_trainer_give_a_token_the_same_probability(policy: Policy, cache: str) -> None:
    vision = policy.vision
    assert vision
    one, other = picture(0), picture(1, 25, 31)
    caller = tiny.Caller(policy.model, 5, options=TorchEngineTable(cache=cache), files=policy.model_files)
    samples = [
        *(sample(f"one/{index}", vision, [one], index=index) for index in range(4)),
        *(sample(f"other/{index}", vision, [other], index=index) for index in range(2)),
        *(sample(f"none/{index}", vision, [], index=index) for index in range(2)),
        sample("both", vision, [other, one]),
    ]
    try:
        drawn = caller.generate(samples)
    finally:
        caller.engine.close()
    ordered = [drawn[each.id] for each in samples]
    for generated, expected in zip(ordered, trained_logprobs(policy, ordered), strict=True):
        assert not generated.error
        engine = np.concatenate([span.full_logprobs for span in generated.spans])
        assert engine == pytest.approx(expected, abs=GAP)
    assert caller.engine._sight.num_encoded == 2  # of nine samples, and two pictures


def test_it_writes_what_generate_writes(policy: Policy) -> None:
    vision = policy.vision
    assert vision
    ids, placed = asked(vision, [picture(2)])
    caller = tiny.Caller(policy.model, files=policy.model_files)
    try:
        greedy = caller.generate([sample("a", vision, [picture(2)], sampling=Sampling(temperature=0))])["a"]
    finally:
        caller.engine.close()
    tokens = torch.tensor([ids])
    with plain_attention(policy.model), torch.no_grad():
        written = policy.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=policy.end_tokens,
            **own_arguments(policy.model, np.array(ids), placed),
        )
    assert tiny.response(greedy) == written[0, len(ids) :].tolist()


@pytest.mark.parametrize("cache", ["slots", "paged"])
def test_a_version_sees_with_its_own_encoder_and_a_sample_goes_on_elsewhere(cache: str, tmp_path: Path) -> None:
    policy, newer = FAMILIES["llava"](tmp_path), FAMILIES["llava"](tmp_path)
    with torch.no_grad():
        for weight in newer.model.get_encoder(modality="image").parameters():
            weight.mul_(1.5)
    vision = policy.vision
    assert vision
    caller = tiny.Caller(policy.model, options=TorchEngineTable(cache=cache), files=policy.model_files)
    try:
        first = caller.generate([sample("a", vision, [picture(0)], max_new_tokens=5)])["a"]
        caller.load(1, newer.model)
        tokens = np.concatenate([first.sample.tokens, *(span.tokens for span in first.spans)])
        rest = replace(first.sample, id="b", tokens=tokens, response_start=len(first.sample.tokens))
        second = caller.generate([rest])["b"]
    finally:
        caller.engine.close()
    (old,), (new,) = trained_logprobs(policy, [first]), trained_logprobs(newer, [second])
    assert np.concatenate([span.full_logprobs for span in first.spans]) == pytest.approx(old, abs=GAP)
    assert np.concatenate([span.full_logprobs for span in second.spans]) == pytest.approx(new, abs=GAP)
    (other,) = trained_logprobs(policy, [second])
    assert np.abs(other - new).max() > 10 * GAP  # the encoder alone has changed
    assert caller.engine._sight.num_encoded == 2


def test_a_text_model_refuses_a_sample_with_images_and_goes_on(tmp_path: Path) -> None:
    vision = FAMILIES["llava"](tmp_path).vision
    assert vision
    caller = tiny.Caller(tiny.tiny_llama())
    try:
        drawn = caller.generate([sample("a", vision, [picture(0)]), tiny.sample("b", [5, 9], 3)])
    finally:
        caller.engine.close()
    assert "LlamaForCausalLM reads text only, and the prompt has images" in drawn["a"].error
    assert len(tiny.response(drawn["b"])) > 0
