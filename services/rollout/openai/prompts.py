"""The prompts of a request as token ids: texts, ids, and messages in the model's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perilune.errors import InvalidInputError
from perilune.models.chat import prompt_ids
from perilune.models.vision import SeenImage, VisionReader
from services.rollout.openai.fields import FieldError
from services.rollout.openai.formats import GivenPrompt
from services.rollout.openai.request import ChatRequest, CompletionRequest
from services.rollout.openai.scoring import chosen_to_score

RESERVED = ("tokenize", "return_dict", "return_tensors", "tools", "documents", "conversation", "chat_template")


def given_prompts(request: CompletionRequest, tokenizer: Any, max_context: int) -> list[GivenPrompt]:
    """The prompts of a completion. FieldError names the one that is wrong."""
    prompts = []
    for number, given in enumerate(request.prompt):
        name = "prompt" if len(request.prompt) == 1 else f"prompt.{number}"
        ids = given if isinstance(given, list) else tokenizer(given)["input_ids"]
        tokens = _checked(name, ids, len(tokenizer))
        if len(tokens) + bool(request.max_tokens) > max_context:
            raise FieldError(name, f"has {len(tokens)} tokens, and the model's context is {max_context}")
        prompt = GivenPrompt(tokens)
        if request.echo:
            prompt.text = given if isinstance(given, str) else tokenizer.decode(given, skip_special_tokens=True)
        if (score := request.score_of(number)) is not None:
            prompt.to_score = chosen_to_score(score, tokens, len(tokenizer))
        prompts.append(prompt)
    return prompts


def chat_prompt(
    request: ChatRequest, tokenizer: Any, max_context: int, vision: VisionReader | None = None
) -> GivenPrompt:
    """The messages in the model's chat template. FieldError if it refuses them, or they leave no room.

    `vision`: the reader of images; None of a model that reads text alone.
    """
    messages = [message.for_template(sees=vision is not None) for message in request.messages]
    arguments, images = _template_arguments(request), _seen(request, vision)
    ids = vision.prompt(messages, images, **arguments) if vision else prompt_ids(tokenizer, messages, **arguments)
    tokens = _checked("messages", ids, len(tokenizer))
    if len(tokens) >= max_context:
        raise FieldError(
            "messages",
            f"the prompt has {len(tokens)} tokens and leaves no room for a response: "
            f"the model's context is {max_context}",
        )
    return GivenPrompt(tokens, vision.place(ids, images) if vision else ())


def _seen(request: ChatRequest, vision: VisionReader | None) -> list[SeenImage]:
    """The images of all messages. FieldError: one cannot be read."""
    if vision is None:
        return []
    try:
        return [vision.see(data) for message in request.messages for data in message.images]
    except FieldError:
        raise
    except InvalidInputError as error:
        raise FieldError("messages", str(error)) from error


def _template_arguments(request: ChatRequest) -> dict[str, Any]:
    if taken := [name for name in request.chat_template_kwargs if name in RESERVED]:
        raise FieldError("chat_template_kwargs", f"{taken[0]} is not the template's to take")
    opening = {
        "add_generation_prompt": request.add_generation_prompt,
        "continue_final_message": request.continue_final_message,
    }
    given = {name: value for name, value in opening.items() if value is not None}
    tools = {"tools": request.offered_tools} if request.offered_tools else {}
    return dict(request.chat_template_kwargs) | given | tools


def _checked(name: str, ids: Sequence[int], vocab_size: int) -> NDArray[np.int32]:
    if not ids:
        raise FieldError(name, "is empty")
    if not all(0 <= token < vocab_size for token in ids):
        raise FieldError(name, f"token ids are 0 to {vocab_size - 1}")
    return np.array(ids, dtype=np.int32)
