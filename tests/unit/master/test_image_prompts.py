"""Messages in parts: text, and images of the blob store by digest, from a row to the prompt."""

from __future__ import annotations

from typing import Any

import pytest

from perilune.data.rows import messages_in_parts
from perilune.errors import InvalidInputError
from services.master.prompts.prompt import make_prompt, question_key
from services.rollout.tokenizer import prompt_tokens

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
    with pytest.raises(InvalidInputError, match="has images, and this engine reads text only"):
        prompt_tokens(prompt, None, 100)
