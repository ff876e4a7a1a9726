"""Fields of a row of data: texts, numbers and conversations under keys, taken as they are or refused by name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from perilune.data.jsonlines import ExactNumber
from perilune.errors import InvalidInputError

ROLES = ("system", "developer", "user", "assistant", "tool")
ALIASES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
IMAGE_TYPES = ("image", "image_url", "input_image")  # of parts of messages: ours, and those of OpenAI's interfaces
_IMAGE_KEYS = {"digest", "media_type"}  # of an image of the blob store
_DIGEST = re.compile("[0-9a-f]{64}", re.ASCII)


def value_at(row: Mapping[str, Any], key: str, where: str) -> Any:
    """The value under a key; `a.b` is the key `b` of the object under `a`, unless the row has a key `a.b` itself.

    InvalidInputError names the row, the key, and the nearest that it has.
    """
    if key in row:
        return row[key]
    first, dot, rest = key.partition(".")
    while dot and first not in row:  # a key may hold dots itself
        more, dot, rest = rest.partition(".")
        first = f"{first}.{more}"
    if not dot:
        raise InvalidInputError(f"{where} has no key {key!r}; it has {_nearest(key, row)}")
    inner = row[first]
    if not isinstance(inner, Mapping):
        raise InvalidInputError(f"{where}: {first!r} is {kind_of(inner)} and has no key {rest!r}")
    return value_at(inner, rest, f"{where}, {first!r}")


def text_of(value: Any, where: str, key: str) -> str:
    """A text as it is, a number as it is written. InvalidInputError for what is neither, and for blank texts."""
    text = _number_text(value)
    if text is None and not isinstance(value, str):
        raise InvalidInputError(f"{where}: {key!r} must be text or a number, and is {kind_of(value)}")
    return plain_text(value if text is None else text, where, key)


def plain_text(value: Any, where: str, key: str, *, may_be_blank: bool = False) -> str:
    """A text that is not blank and can be written as UTF-8. InvalidInputError otherwise."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{where}: {key!r} must be text, and is {kind_of(value)}")
    if not value.strip() and not may_be_blank:
        raise InvalidInputError(f"{where}: {key!r} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(value[error.start]):04X}"
        raise InvalidInputError(f"{where}: {key!r} has half a character, the lone surrogate {code}") from error
    return value


def label_of(value: Any, where: str, key: str) -> str:
    """A label as text: numbers as they are written, true and false as in JSON. InvalidInputError for all else."""
    return str(value).lower() if isinstance(value, bool) else text_of(value, where, key)


def messages_of(value: list[Any], where: str, key: str) -> list[dict[str, str]]:
    """A conversation of text: each message has a role and a content, and nothing else that says something.

    A last message of the assistant is the beginning of the response. InvalidInputError names the message and its key.
    """
    return _messages(value, where, key, _text_content)


def image_by_digest(part: Mapping[str, Any], where: str, key: str) -> dict[str, str]:
    """A part that names an image of the blob store: {"type": "image", "digest": …, "media_type": …}.

    InvalidInputError names the key that is wrong.
    """
    _refuse_more(part, _IMAGE_KEYS, where, key)
    read = {name: plain_text(part.get(name), where, f"{key}.{name}") for name in sorted(_IMAGE_KEYS)}
    if not _DIGEST.fullmatch(read["digest"]):
        raise InvalidInputError(f"{where}: {f'{key}.digest'!r} is no SHA-256 in hex: {read['digest']!r:.80}")
    return {"type": "image", **read}


ReadImage = Callable[[Mapping[str, Any], str, str], dict[str, str]]  # as `image_by_digest`


def messages_in_parts(
    value: list[Any], where: str, key: str, read_image: ReadImage = image_by_digest
) -> list[dict[str, Any]]:
    """A conversation as `messages_of` reads it, in which a content may also be a list of parts.

    A part is {"type": "text", "text": …} or an image, which `read_image` makes an image of the blob store.
    """
    return _messages(value, where, key, partial(_content_in_parts, read_image))


def _messages(value: list[Any], where: str, key: str, read_content: Callable[..., Any]) -> list[dict[str, Any]]:
    messages = []
    for place, message in enumerate(value):
        role = role_of(message, where, f"{key}[{place}]")
        content = read_content(message.get("content"), where, f"{key}[{place}].content", role)
        messages.append({"role": role, "content": content})
    if not any(message["role"] in ("user", "tool") for message in messages):
        raise InvalidInputError(f"{where}: {key!r} has no message of the user")
    return messages


def _text_content(value: Any, where: str, key: str, role: str) -> str:
    return plain_text(value, where, key, may_be_blank=role == "system")


def _content_in_parts(read_image: ReadImage, value: Any, where: str, key: str, role: str) -> str | list[dict[str, str]]:
    if isinstance(value, list) and value:
        return [_part(part, where, f"{key}[{place}]", read_image) for place, part in enumerate(value)]
    return _text_content(value, where, key, role)


def kind_of(value: Any) -> str:
    """Says what a value is, in JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case ExactNumber():
            return f"the number {value.text:.40}"
        case float() if not math.isfinite(value):
            return "no finite number"
        case int() | float() | Decimal():
            return f"the number {value}"
        case str():
            return f"the text {value!r:.60}"
        case list() | tuple():
            return f"a list: {value!r:.60}"
        case Mapping():
            return f"an object with {', '.join(map(repr, value)) or 'no keys'}"
        case _:
            return f"of type {type(value).__name__}"


def role_of(message: Any, where: str, key: str, also: Collection[str] = ()) -> str:
    """A message's role. InvalidInputError if it has none, or says what would be lost: keys that `also` has not."""
    if not isinstance(message, Mapping):
        raise InvalidInputError(f"{where}: {key!r} must have a role and a content, and is {kind_of(message)}")
    # Parquet gives every message the keys of all of them: what is null or empty was not said.
    known = {"role", "content", *also}
    extra = [name for name, value in message.items() if name not in known and value not in (None, [], {})]
    if extra:
        raise InvalidInputError(
            f"{where}: {f'{key}.{extra[0]}'!r} would be lost: a message has a role and a content"
            f"{', ' + ', '.join(also) if also else ''} and nothing else"
        )
    role = message.get("role")
    if role not in ROLES:
        hint = (
            f"write {ALIASES[role]!r}" if isinstance(role, str) and role in ALIASES else f"known are {', '.join(ROLES)}"
        )
        raise InvalidInputError(f"{where}: {f'{key}.role'!r} is {kind_of(role)}, and no role: {hint}")
    return str(role)


def _part(part: Any, where: str, key: str, read_image: ReadImage) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in IMAGE_TYPES:
        return read_image(part, where, key)
    if kind != "text":
        raise InvalidInputError(f"{where}: {key!r} is no part of a message: its type must be text or image")
    _refuse_more(part, {"text"}, where, key)
    return {"type": "text", "text": plain_text(part.get("text"), where, f"{key}.text")}


def _refuse_more(part: Mapping[str, Any], known: Collection[str], where: str, key: str) -> None:
    """InvalidInputError if a part says something that would be lost."""
    # Parquet gives every part the keys of all of them: what is null was not said.
    said = {name for name, value in part.items() if value is not None} - {"type"}
    if extra := sorted(said - set(known)):
        raise InvalidInputError(f"{where}: {f'{key}.{extra[0]}'!r} would be lost: known are {sorted(known)}")


def _number_text(value: Any) -> str | None:
    """The digits of a number; None for all else, also NaN and infinities."""
    match value:
        case bool():
            return None
        case ExactNumber():
            return value.text
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value)
        case Decimal() if value.is_finite():
            return format(value, "f")
    return None


def _nearest(key: str, row: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, list(row), n=1) or sorted(row)
    return ", ".join(map(repr, near)) or "no keys"
