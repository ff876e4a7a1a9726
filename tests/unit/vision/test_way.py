"""The way of an image: from the blob store to the worker's prompt and the trainer's row, with the same pixels."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.trajectory.v1.trajectory_pb2 import ChatMessage, ContentPart, ImageRef, Prompt, Trajectory
from perilune.codec import pack
from perilune.errors import InvalidInputError, NotFoundError
from perilune.images import digest_of_image
from perilune.models.vision.names import names_in_files
from perilune.recipe import AdapterTable, WarmupStage
from perilune.runtime.blobs import Blobs
from perilune.runtime.images import ImageCache
from services.rollout.tokenizer import read_prompt, reread_prompt
from services.trainer.images import BatchImages, fetch_images
from services.trainer.policy.adapter import adapt, factors
from services.trainer.policy.layers import freeze_encoder
from services.trainer.policy.model import Policy
from services.trainer.policy.sources import hollow_policy
from services.trainer.stages import make_stage
from tests.unit.trainer.models import recipe, tiny_policy
from tests.unit.vision.families import LLAVA, llava, picture

ONE, OTHER = picture(0), picture(1, 33, 50)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return llava(Path())


def prompt_of(*pictures: bytes, text: str = "which two") -> Prompt:
    images = [ImageRef(digest=digest_of_image(each), media_type="image/png") for each in pictures]
    parts = [*(ContentPart(image=image) for image in images), ContentPart(text=text)]
    return Prompt(id="p", messages=[ChatMessage(role="user", content=text, parts=parts)], images=images)


def trajectory_of(policy: Policy, *pictures: bytes) -> Trajectory:
    read = read_prompt(prompt_of(*pictures), policy.tokenizer, 200, policy.vision, pictures)
    return Trajectory(id="g/0", prompt=prompt_of(*pictures), prompt_tokens=pack(read.tokens), processor=read.processor)


def test_the_trainer_makes_the_workers_pixels_again_to_the_bit(policy: Policy) -> None:
    read = read_prompt(prompt_of(ONE, OTHER), policy.tokenizer, 200, policy.vision, [ONE, OTHER])
    there = hollow_policy(policy.model_files)  # made of the files that travel with a version
    found = {digest_of_image(each): each for each in (ONE, OTHER)}
    placed = BatchImages(there.vision, found).placed(trajectory_of(policy, ONE, OTHER))
    again = reread_prompt(prompt_of(ONE, OTHER), read.tokens, there.vision, [ONE, OTHER]).images
    for one, other, third in zip(read.images, placed, again, strict=True):
        assert (one.start, one.digest) == (other.start, other.digest) == (third.start, third.digest)
        assert torch.equal(one.image.pixels["pixel_values"], other.image.pixels["pixel_values"])
    assert [image.slots.tolist() for image in placed] == [[1, 2, 3, 4], [5, 6, 7, 8]]  # 32 pixels, 16 a patch


def test_what_a_prompt_with_images_is_refused_for(policy: Policy) -> None:
    for given, vision, reason in (
        (prompt_of(ONE), None, "this model reads text only"),
        (prompt_of(*[ONE] * 60), policy.vision, "240 of them of 60 images, and leaves no room"),
        (prompt_of(ONE, text="a <image>"), policy.vision, "have 1 images, and as text 2 placeholders <image>"),
        (prompt_of(text="a <image>"), policy.vision, "have 0 images, and as text 1 placeholders <image>"),
    ):
        with pytest.raises(InvalidInputError, match=reason):
            read_prompt(given, policy.tokenizer, 200, vision, [ONE] * len(given.images))
    with pytest.raises(InvalidInputError, match="prompt p: the image"):
        read_prompt(prompt_of(b"GIF89a"), policy.tokenizer, 200, policy.vision, [b"GIF89a"])


def test_what_a_sample_with_images_is_refused_for(policy: Policy) -> None:
    sample, digest = trajectory_of(policy, ONE), digest_of_image(ONE)
    with pytest.raises(InvalidInputError, match="the policy reads text only"):
        BatchImages().placed(sample)
    with pytest.raises(InvalidInputError, match="is not there: it is gone"):
        BatchImages(policy.vision, {digest: "it is gone"}).placed(sample)
    sample.processor = "processor 0 (transformers 4.0, Pillow 1.0)"
    with pytest.raises(InvalidInputError, match=r"were read by processor 0 \(transformers 4.0, Pillow 1.0\)"):
        BatchImages(policy.vision, {digest: ONE}).placed(sample)
    sample = trajectory_of(policy, ONE)
    sample.prompt_tokens.CopyFrom(pack(np.array([1, 9, 9], np.int32)))
    with pytest.raises(InvalidInputError, match="have no place for the image"):
        BatchImages(policy.vision, {digest: ONE}).placed(sample)


async def test_an_image_crosses_once_to_a_process(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    one, other = await blobs.put(ONE), await blobs.put(OTHER)
    cache = ImageCache(blobs, max_bytes=len(ONE) + len(OTHER))
    assert await asyncio.gather(*(cache.get(one) for _ in range(5))) == [ONE] * 5
    assert (await cache.get(other), cache.num_fetched, cache.num_bytes) == (OTHER, 2, len(ONE) + len(OTHER))
    missing = "0" * 64
    with pytest.raises(NotFoundError, match="not in the blob store"):
        await cache.get(missing)
    group = ScoredGroup()
    for digest in (one, missing):
        group.samples.add().trajectory.prompt.images.add(digest=digest)
    found = await fetch_images([group], cache)
    assert found[one] == ONE
    assert "not in the blob store" in str(found[missing])
    assert cache.num_fetched == 2
    third = await blobs.put(picture(3, 90, 90))
    await cache.get(third)
    await cache.get(other)
    assert cache.num_fetched == 4  # there was no room for both


def trained(policy: Policy) -> set[str]:
    """The parameters that a step of a warm-up has a gradient for, by their module in the model."""
    stage = make_stage(WarmupStage(type="warmup", task="counting", num_steps=2, batch_size=3), policy, recipe())
    loss = stage.accumulate(0, None)["loss"]
    assert np.isfinite(loss)
    named = policy.model.named_parameters()
    return {name.split(".")[1] for name, weight in named if weight.grad is not None and weight.grad.abs().sum() > 0}


def test_a_warm_up_looks_and_trains_the_encoder_unless_it_is_frozen() -> None:
    changes = LLAVA | {"task": "counting"}
    assert trained(tiny_policy(**changes)) == {"vision_tower", "multi_modal_projector", "language_model"}
    frozen = tiny_policy(**changes)
    freeze_encoder(frozen.model)
    assert trained(frozen) == {"multi_modal_projector", "language_model"}
    text = tiny_policy(task="counting")
    with pytest.raises(InvalidInputError, match="LlamaForCausalLM reads text only, and has no encoder"):
        freeze_encoder(text.model)
    with pytest.raises(InvalidInputError, match="an example has images, and this model reads text only"):
        trained(text)


def test_an_adapter_is_that_of_the_language_part() -> None:
    policy = llava(Path())
    adapt(policy.model, AdapterTable(rank=2, targets=["q_proj", "v_proj"]), seed=0)
    names = list(factors(policy.model))
    assert len(names) == 2 * 2 * 2  # layers, targets, factors
    assert all("language_model" in name for name in names)


def test_a_checkpoint_has_the_names_of_published_models_and_comes_back_to_the_bit(tmp_path: Path) -> None:
    policy = llava(tmp_path)
    policy.save(tmp_path)
    names = names_in_files(policy.model_files)
    assert names["lm_head.weight"] == "language_model.lm_head.weight"
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = set(file.keys())
    assert "vision_tower.vision_model.embeddings.patch_embedding.weight" in stored  # as vLLM reads it
    assert stored == set(names.values()) - {"language_model.lm_head.weight"}  # which is tied
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in policy.model.state_dict().items())
