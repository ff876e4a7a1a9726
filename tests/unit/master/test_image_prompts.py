"""Messages in parts: text, and images of the blob store by digest, from a row to the prompt."""

from __future__ import annotations

from typing import Any

import pytest

from perilune.data.rows import messages_in_parts
from perilune.errors import InvalidInputError
from perilune.images import digest_of_image, read_image
from perilune.recipe import CurriculumSampler, TaskPrompts
from services.master.prompts import open_prompts
from services.master.prompts.prompt import make_prompt, question_key
from services.master.samplers import open_sampler
from services.rollout.tokenizer import read_prompt

DIGEST = "0a" * 32
TEXT = {"type": "text", "text": "How many dots?"}
IMAGE = {"type": "image", "digest": DIGEST, "media_type": "image/png"}


def conversation(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def test_a_message_in_parts_keeps_their_order_and_its_text() -> None:
    prompt = make_prompt(messages_in_parts(conversation(IMAGE, TEXT), "row 1", "question"), "3")
    (message,) = prompt.messages
    assert message.content == "How many dots?"
    assert [part.WhichOneof("part") for part in message.parts] == ["image", "text"]
    assert [(image.digest, image.media_type) for image in prompt.images] == [(DIGEST, "image/png")]


def test_text_alone_is_the_prompt_that_it_was() -> None:
    plain = [{"role": "user", "content": "How many dots?"}]
    prompt = make_prompt(messages_in_parts(plain, "row 1", "question"), "3")
    assert prompt == make_prompt(plain, "3")
    assert not prompt.messages[0].parts


def test_another_image_is_another_question() -> None:
    first, second = (
        make_prompt(messages_in_parts(conversation(TEXT, IMAGE | {"digest": digest}), "row", "question"), "3")
        for digest in (DIGEST, "0b" * 32)
    )
    assert question_key(first) != question_key(second)
    assert first.id != second.id


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("text", "no part of a message"),
        ({"type": "video"}, "no part of a message"),
        (TEXT | {"weight": 1}, "weight' would be lost"),
        ({"type": "image", "media_type": "image/png"}, "digest' must be text"),
        (IMAGE | {"digest": "../x"}, "no SHA-256 in hex"),
        (IMAGE | {"media_type": ""}, "media_type' is empty"),
        ({"type": "text", "text": " "}, "text' is empty"),
    ],
)
def test_what_is_no_part_is_refused_by_name(part: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        messages_in_parts(conversation(part), "row 1", "question")


def test_an_engine_that_reads_text_alone_says_so() -> None:
    prompt = make_prompt(messages_in_parts(conversation(IMAGE, TEXT), "row 1", "question"), "3")
    with pytest.raises(InvalidInputError, match="has images, and this model reads text only"):
        read_prompt(prompt, None, 100)


def test_a_task_that_draws_names_its_images_and_draws_them_again() -> None:
    prompts = open_prompts(TaskPrompts(source="task", name="counting", num_train=20, num_heldout=20), seed=3)
    assert open_prompts(TaskPrompts(source="task", name="counting", num_train=20, num_heldout=20), 3).digest == (
        prompts.digest
    )
    for held_out, prompt_of in ((False, prompts.train), (True, prompts.heldout)):
        prompt = prompt_of(5)
        (image,) = prompts.drawn_images(5, held_out=held_out)
        assert [(ref.digest, ref.media_type) for ref in prompt.images] == [(digest_of_image(image), "image/png")]
        assert prompt.messages[0].content.startswith("How many shapes are")
    assert prompts.labels(5) == prompts.train(5).labels
    assert set(prompts.labels(5)) == {"difficulty", "kind"}


def test_a_curriculum_of_drawn_problems_reads_their_labels_alone() -> None:
    sampler = CurriculumSampler(type="curriculum", warmup_iterations=1, difficulty_label="difficulty", min_difficulty=5)
    prompts = open_prompts(TaskPrompts(source="task", name="counting", num_train=50, num_heldout=5), seed=3)
    hard = open_sampler(sampler, prompts).hard  # type: ignore[attr-defined]
    assert hard == [index for index in range(50) if prompts.train(index).labels["difficulty"] == "5"]


def test_noise_leaves_less_of_a_picture_and_is_always_the_same() -> None:
    table = TaskPrompts(source="task", name="counting", num_train=20, num_heldout=20)
    images = []
    for noise in (0.0, 0.5, 1.0):
        prompts = open_prompts(table.model_copy(update={"noise": noise}), seed=3)
        (image,) = prompts.drawn_images(0, held_out=False)
        assert prompts.train(0).images[0].digest == digest_of_image(image)
        images.append(read_image(image))
    clean, half, nothing = ([pixel[0] for pixel in image.get_flattened_data()] for image in images)  # type: ignore[index]
    assert clean[0] == 255
    assert all(abs(2 * h - c - n) <= 2 for h, c, n in zip(half, clean, nothing, strict=True))
    assert len(set(nothing)) > 200
    assert open_prompts(table.model_copy(update={"noise": 1.0}), 3).digest != open_prompts(table, 3).digest
