"""Conversations of a row with all that chat templates render: tool calls and their answers, reasoning, tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perilune.data.jsonlines import ExactNumber, parse_json
from perilune.data.rows import kind_of, plain_text, role_of
from perilune.errors import InvalidInputError

Message = dict[str, Any]  # as chat templates take it
Tools = list[dict[str, Any]]  # JSON schemas of functions, as chat templates take them

MORE_KEYS = ("tool_calls", "tool_call_id", "name", "reasoning_content", "thinking")  # of a message
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
_IMAGE_PARTS = ("image", "image_url", "input_image", "video", "audio", "input_audio")


def chat_of(value: Any, where: str, key: str) -> list[Message]:
    """The messages of a conversation. InvalidInputError names the message and the key that is wrong.

    It may be JSON text, as in a column of CSV. A content may be a list of parts, of text alone.
    """
    value = _unfolded(value, where, key)
    if not isinstance(value, list):
        raise InvalidInputError(f"{where}: {key!r} must be a list of {{role, content}}, and is {kind_of(value)}")
    return [_message(message, where, f"{key}[{place}]") for place, message in enumerate(value)]


def sharegpt_chat(value: Any, where: str, key: str) -> list[Message]:
    """The messages of a list of {from, value}. Errors as `chat_of`."""
    value = _unfolded(value, where, key)
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise InvalidInputError(f"{where}: {key!r} must be a list of {{from, value}}, and is {kind_of(value)}")
    if any("role" in each for each in value):
        return chat_of(value, where, key)
    renamed = [
        {"role": SHAREGPT_ROLES.get(each.get("from"), each.get("from")), "content": each.get("value")} for each in value
    ]
    return chat_of(renamed, where, key)


def tools_of(value: Any, where: str, key: str) -> Tools | None:
    """The functions that a conversation may call; None if there are none. InvalidInputError: no list of schemas."""
    value = _unfolded(value, where, key)
    if value in (None, [], ""):
        return None
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise InvalidInputError(f"{where}: {key!r} must be a list of JSON schemas, and is {kind_of(value)}")
    return [plain(without_nulls(tool)) for tool in value]


def plain(value: Any) -> Any:
    """A value of JSON with Python's own numbers, as a template's `tojson` takes it."""
    match value:
        case ExactNumber():
            return float(value.text) if set(value.text) & set(".eE") else int(value.text)
        case Mapping():
            return {name: plain(each) for name, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
    return value


def without_nulls(value: Any) -> Any:
    """A value without keys that are null: Parquet gives every row the keys of all of them."""
    match value:
        case Mapping():
            return {name: without_nulls(each) for name, each in value.items() if each is not None}
        case list():
            return [without_nulls(each) for each in value]
    return value


def _unfolded(value: Any, where: str, key: str) -> Any:
    """The value of JSON text; what is no text that could be a list is as it was."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        return parse_json(value.encode("utf-8", "replace"), f"{where}: {key!r}")
    return value


def _message(message: Any, where: str, key: str) -> Message:
    role = role_of(message, where, key, also=MORE_KEYS)
    read: Message = {"role": role, "content": _content(message, role, where, key)}
    for name in MORE_KEYS[1:]:
        if message.get(name) is not None:
            read[name] = plain_text(message[name], where, f"{key}.{name}", may_be_blank=True)
    if calls := message.get("tool_calls"):
        read["tool_calls"] = _calls(calls, where, f"{key}.tool_calls")
    return read


def _content(message: Mapping[str, Any], role: str, where: str, key: str) -> str:
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return ""
    if isinstance(content, list):
        content = "".join(_text_part(part, where, f"{key}.content[{place}]") for place, part in enumerate(content))
    may_be_blank = role in ("system", "tool") or bool(message.get("tool_calls"))
    return plain_text(content, where, f"{key}.content", may_be_blank=may_be_blank)


def _text_part(part: Any, where: str, key: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _IMAGE_PARTS:
        raise InvalidInputError(
            f"{where}: {key!r} is of the type {kind!r}: only text is learnt from; leave the row out"
        )
    if kind != "text":
        raise InvalidInputError(f"{where}: {key!r} is no part of text: its type is {kind_of(kind)}")
    return plain_text(part.get("text"), where, f"{key}.text", may_be_blank=True)


def _calls(value: Any, where: str, key: str) -> list[dict[str, Any]]:
    """Tool calls in the form of OpenAI's; arguments as an object, which templates render."""
    if not isinstance(value, list):
        raise InvalidInputError(f"{where}: {key!r} must be a list of calls, and is {kind_of(value)}")
    return [_call(call, where, f"{key}[{place}]") for place, call in enumerate(value)]


def _call(call: Any, where: str, key: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidInputError(
            f"{where}: {key!r} must be a call: {{function: {{name, arguments}}}}, and is {kind_of(call)}"
        )
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = parse_json(arguments.encode("utf-8", "replace") or b"{}", f"{where}: {f'{key}.arguments'!r}")
    read = {
        "type": "function",
        "function": {"name": function["name"], "arguments": plain(without_nulls(arguments or {}))},
    }
    return read | ({"id": call["id"]} if isinstance(call.get("id"), str) else {})
