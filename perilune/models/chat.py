"""A model's tokenizer and its chat template: how messages become token ids, the same in warm-up and in rollouts.

Needs no transformers of its own: it is handed the tokenizer.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jinja2

from perilune.errors import InvalidInputError

logger = logging.getLogger(__name__)

Message = Mapping[str, Any]  # role and content, which are texts, and what else a template reads

ANSWER = "perilune"  # stands for a response, where only what comes after it is looked at


def set_template(tokenizer: Any, template: str | None, arguments: Mapping[str, Any]) -> None:
    """Gives a tokenizer a chat template, and makes arguments of it defaults that its text itself states.

    So they hold wherever the tokenizer goes. InvalidInputError: a template that is none, or that takes no such
    arguments.
    """
    if template is not None:
        tokenizer.chat_template = template
    if arguments:
        tokenizer.chat_template = with_defaults(tokenizer.chat_template, arguments)
    if template is None and not arguments:
        return
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except jinja2.TemplateSyntaxError as error:
        raise InvalidInputError(f"model.chat_template, line {error.lineno}: {error.message}") from error
    except Exception as error:  # noqa: BLE001 - a template is a program, and may refuse this message and no other
        logger.debug("the chat template refuses a lone user message: %s", error)


def with_defaults(templates: Any, arguments: Mapping[str, Any]) -> Any:
    """A template, or each of several by name, with these defaults. InvalidInputError: it takes no such argument."""
    if isinstance(templates, dict):
        return {name: with_defaults(template, arguments) for name, template in templates.items()}
    unknown = [name for name in arguments if not re.search(rf"\b{re.escape(name)}\b", templates or "")]
    if unknown:
        raise InvalidInputError(
            f"model.template_arguments: the model's chat template takes no argument {unknown[0]!r}"
            if templates
            else "model.template_arguments: the model has no chat template that takes any; set model.chat_template"
        )
    return (
        "".join(
            f"{{% set {name} = {name} if {name} is defined else {json.dumps(value, ensure_ascii=False)} %}}"
            for name, value in arguments.items()
        )
        + templates
    )


# Put before a template that knows contents as lists of parts alone: a text becomes a list of one part.
_PLAIN_CONTENTS = (
    "{%- set plain = namespace(messages=[]) -%}{%- for message in messages -%}"
    "{%- set content = message['content'] -%}"
    "{%- set content = [{'type': 'text', 'text': content}] if content is string else content -%}"
    "{%- set plain.messages = plain.messages + [dict(message, content=content)] -%}"
    "{%- endfor -%}{%- set messages = plain.messages -%}"
)


def take_plain_contents(tokenizer: Any) -> None:
    """Has a chat template that knows contents as lists of parts alone take plain texts as well, by what it says."""
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return
    try:
        text = tokenizer.apply_chat_template([{"role": "user", "content": ANSWER}], tokenize=False)
    except Exception as error:  # noqa: BLE001 - a template is a program: it has its reasons, and stays as it is
        logger.debug("the chat template refuses a plain text: %s", error)
        text = ""
    if ANSWER not in text:
        tokenizer.chat_template = _PLAIN_CONTENTS + template


def check_tokenizer(tokenizer: Any, num_embeddings: int, name: str) -> None:
    """InvalidInputError if a model cannot use its tokenizer.

    It may have several chat templates, of which one must be the default, and no token of its text that the model has no
    embedding for. Only special tokens that no template writes may lie beyond: placeholders of images, in a model that
    reads text. `name` is the model's.
    """
    templates = tokenizer.chat_template
    if isinstance(templates, dict) and templates and "default" not in templates:
        raise InvalidInputError(
            f"the tokenizer of {name} has several chat templates and none is called 'default': there are "
            f"{', '.join(sorted(templates))}; rename the one to use, in chat_template of tokenizer_config.json"
        )
    beyond = _tokens_beyond(tokenizer, num_embeddings)
    if beyond:
        raise InvalidInputError(
            f"the tokenizer has {len(beyond)} tokens beyond the {num_embeddings} that {name} has embeddings for, the "
            f"first is {beyond[0]!r}; take the tokenizer that belongs to the model, or save the model with its "
            "embeddings resized (resize_token_embeddings)"
        )


def vocabulary_digest(tokenizer: Any) -> str:
    """SHA-256 in hex of a tokenizer's tokens with their ids: with another vocabulary the same ids are another text."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()


def other_tokenizer(teacher: str) -> str:
    """Says that a teacher has another tokenizer than the policy, and what to do."""
    return (
        f"the teacher {teacher!r} has another tokenizer than the policy, so it cannot say how likely the policy's "
        "tokens are; name a model of the policy's family"
    )


def check_ids(ids: Sequence[int], num_embeddings: int, what: str) -> None:
    """InvalidInputError if a text has tokens that the model has no embedding for; `what` says which text."""
    if ids and max(ids) >= num_embeddings:
        raise InvalidInputError(
            f"{what} has token {max(ids)}, and the model has embeddings for 0 to {num_embeddings - 1}: is there a "
            "placeholder of an image in it?"
        )


def prompt_ids(tokenizer: Any, messages: Sequence[Message], **arguments: Any) -> list[int]:
    """A prompt in the tokenizer's chat template, up to where the response begins; plain text if it has none.

    A last message of the assistant is a response begun: it is not closed, so that the model goes on with it.
    `arguments` are the template's own. InvalidInputError if the template or the tokenizer refuses it.
    """
    with _refusals(messages):
        if tokenizer.chat_template:
            settings = _opening(messages) | arguments
            encoded = tokenizer.apply_chat_template(list(messages), return_dict=True, **settings)
        else:
            encoded = tokenizer("\n".join(message["content"] for message in messages))
        ids: list[int] = encoded["input_ids"]
        return ids


def prompt_text(tokenizer: Any, messages: Sequence[Message], placeholder: str, **arguments: Any) -> str:
    """A prompt as text, up to where the response begins; its contents may be lists of parts, text and images.

    `placeholder` stands for an image where there is no template; `arguments` are the template's own. InvalidInputError
    if the template refuses it.
    """
    if tokenizer.chat_template:
        with _refusals(messages):
            settings = _opening(messages) | arguments
            text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **settings)
            return text
    return (tokenizer.bos_token or "") + "\n".join(said(message, placeholder) for message in messages)


def said(message: Message, placeholder: str = "") -> str:
    """A message's text, of all its parts, with something in place of images."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] if part["type"] == "text" else placeholder for part in content)


def chat_text(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None = None,
    is_begun: bool = False,
    is_closed: bool = False,
) -> str:
    """A conversation as the chat template writes it; "" of no messages.

    The assistant's next turn is opened, unless the last message is begun (it is not closed) or all is said.
    InvalidInputError if the template refuses it.
    """
    if not messages:
        return ""
    with _refusals(messages):
        text: str = tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) if tools else None,
            tokenize=False,
            add_generation_prompt=not (is_begun or is_closed),
            continue_final_message=is_begun,
        )
        return text


def text_with_generation(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as the chat template writes it, and the characters that its `{% generation %}` marks hold.

    InvalidInputError if the template refuses it.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    with _refusals(messages):
        given: Any = list(tools) if tools else None
        found: Any = render_jinja_template(
            conversations=[[dict(message) for message in messages]],
            tools=given,
            chat_template=tokenizer.get_chat_template(None, given),
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
        (text,), (spans,) = found
        return text, list(spans)


def _opening(messages: Sequence[Message]) -> dict[str, bool]:
    """The arguments with which a template opens the assistant's turn, or leaves open what is begun."""
    is_begun = _is_begun(messages)
    return {"add_generation_prompt": not is_begun, "continue_final_message": is_begun}


def continuation_ids(
    tokenizer: Any, messages: Sequence[Message], turn: str, answers: Sequence[Message], *, is_final: bool = False
) -> list[int]:
    """Token ids with which a conversation goes on behind a turn of the assistant, as the chat template has them.

    They close the turn and say the answers; unless those are the last, they open the assistant's next turn.

    Args:
        messages: the prompt, as `prompt_ids` takes it.
        turn: what the assistant said last, without the token that closes it.
        answers: messages of other roles.

    Raises:
        InvalidInputError: there is no template, it refuses the messages, or it cannot be continued: in the longer
            conversation it renders otherwise what came before, so no ids that are appended would be its own.
    """
    if not tokenizer.chat_template:
        raise InvalidInputError("the model has no chat template that could render messages; set model.chat_template")
    marker = unused_in(" ".join(said(message) for message in [*messages, *answers]))
    opened = chat_text(tokenizer, messages, is_begun=_is_begun(messages))
    whole = chat_text(tokenizer, [*_with_turn(messages, marker), *answers], is_closed=is_final)
    real = chat_text(tokenizer, [*_with_turn(messages, turn), *answers], is_closed=is_final)
    head, found, tail = whole.partition(marker)
    ids, before = _ids(tokenizer, whole), _ids(tokenizer, head + marker)
    if not found or _ids(tokenizer, head) != _ids(tokenizer, opened) or ids[: len(before)] != before:
        raise InvalidInputError(
            f"the model's chat template cannot be continued (roles: {_roles(answers)}): behind a prompt it opens the "
            "assistant's turn otherwise than it renders it in a conversation; set model.chat_template or "
            "model.template_arguments"
        )
    if without_space(real) != without_space(head + turn + tail):
        raise InvalidInputError(
            f"the model's chat template cannot be continued (roles: {_roles(answers)}): it changes the assistant's "
            f"earlier turn, which was {turn!r:.200}; set model.chat_template to one that keeps it"
        )
    return ids[len(before) :]


def check_continuation(tokenizer: Any, end_tokens: Collection[int], roles: Sequence[str]) -> None:
    """Checks that messages of these roles may answer the assistant. InvalidInputError says why a template is none."""
    if roles and tokenizer.chat_template and closing_token(tokenizer, end_tokens) is None:
        raise InvalidInputError(
            "the model's chat template closes the assistant's turn with none of the tokens that end a response, so a "
            "turn would never be over; set model.chat_template"
        )
    for role in roles:
        continuation_ids(tokenizer, [{"role": "user", "content": "?"}], ANSWER, [{"role": role, "content": "?"}])


def closing_token(tokenizer: Any, end_tokens: Collection[int]) -> int | None:
    """Of the tokens that end a response, the one with which the chat template ends what the assistant says.

    None without a template, or if the template ends it with none of them.
    """
    if not tokenizer.chat_template:
        return None
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
    try:
        text: str = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # noqa: BLE001 - a template is a program; if it renders no such turn, it does not say how one ends
        return None
    after = text.rpartition(ANSWER)[2] if ANSWER in text else ""
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return next((token for token in ids if token in end_tokens), None)


@contextlib.contextmanager
def _refusals(messages: Sequence[Message]) -> Iterator[None]:
    """Turns what a template or a tokenizer raises into an InvalidInputError that says of which messages."""
    try:
        yield
    except Exception as error:  # a template is a program, and a text may be any: what they raise is theirs
        raise InvalidInputError(
            f"the model's chat template or tokenizer refuses the messages (roles: {_roles(messages)}): "
            f"{type(error).__name__}: {error}"
        ) from error


def _roles(messages: Sequence[Message]) -> str:
    return ", ".join(message["role"] for message in messages)


def _is_begun(messages: Sequence[Message]) -> bool:
    """Tests whether the last message is a response begun."""
    return bool(messages) and messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls")


def _with_turn(messages: Sequence[Message], turn: str) -> list[Message]:
    """The conversation with the assistant's turn, which may have been begun."""
    if _is_begun(messages):
        return [*messages[:-1], {"role": "assistant", "content": said(messages[-1]) + turn}]
    return [*messages, {"role": "assistant", "content": turn}]


def _ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a rendered text, which holds its special tokens itself."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def unused_in(text: str) -> str:
    """A word that does not occur in a text."""
    return next(word for number in itertools.count() if (word := f"{ANSWER}{number or ''}") not in text)


def without_space(text: str) -> str:
    """A text without blanks of any kind."""
    return "".join(text.split())


def _tokens_beyond(tokenizer: Any, num_embeddings: int) -> list[str]:
    """In the order of their ids; without special ones that come from nowhere but a prompt's own text."""
    templates = tokenizer.chat_template
    written = "".join(templates.values()) if isinstance(templates, dict) else templates or ""
    named = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    idle = {token for token in special if token not in named and token not in written}
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    return [token for token, number in vocabulary if number >= num_embeddings and token not in idle]
