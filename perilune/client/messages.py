"""Messages made of what a caller gives: a value that cannot be sent is named by its field."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from perilune.errors import InvalidInputError

M = TypeVar("M", bound=Message)


def message(kind: type[M], **fields: Any) -> M:
    """A message of these fields. InvalidInputError names the field that cannot be sent, and says why."""
    given = {name: list(value) if isinstance(value, Iterator) else value for name, value in fields.items()}
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:  # half a character is a ValueError
        name = next((name for name, value in given.items() if not _fits(kind, name, value)), "")
        if name not in kind.DESCRIPTOR.fields_by_name:
            raise InvalidInputError(f"{kind.DESCRIPTOR.name} cannot be made: {error}") from error
        why = _problem(given[name], kind.DESCRIPTOR.fields_by_name[name])
        raise InvalidInputError(f"{name} cannot be sent: {why}") from error


def check_deadline(deadline_s: float) -> float:
    """A deadline in seconds. InvalidInputError if it is none."""
    if not isinstance(deadline_s, int | float) or not 0 < deadline_s < math.inf:
        raise InvalidInputError(f"deadline_s has to be a number of seconds above 0, not {deadline_s!r:.80}")
    return deadline_s


def as_bytes(name: str, content: bytes | str) -> bytes:
    """Text or bytes as bytes. InvalidInputError names the field where it is neither, or has half a character."""
    try:
        return content.encode() if isinstance(content, str) else bytes(memoryview(content))
    except (UnicodeEncodeError, TypeError) as error:
        why = _half_character(content) or f"it has to be bytes or a string, not {_shown(content)}"
        raise InvalidInputError(f"{name} cannot be sent: {why}") from error


def _fits(kind: type[Message], name: str, value: Any) -> bool:
    try:
        kind(**{name: value})
    except (TypeError, ValueError):
        return False
    return True


def _problem(value: Any, field: Any) -> str:
    return _half_character(value) or f"it has to be {_wanted(field)}, not {_shown(value)}"


def _half_character(value: Any) -> str:
    """Finds the first text with half a character (a lone surrogate), in any container; empty if there is none."""
    if isinstance(value, str):
        places = (place for place, character in enumerate(value) if "\ud800" <= character <= "\udfff")
        place = next(places, None)
        return "" if place is None else f"it has half a character, the lone surrogate {value[place]!r}, at {place}"
    if isinstance(value, Mapping):
        return next(filter(None, map(_half_character, (*value.keys(), *value.values()))), "")
    return next(filter(None, map(_half_character, value)), "") if isinstance(value, list | tuple) else ""


def _wanted(field: Any) -> str:
    """The values that a field takes, in words."""
    if field.message_type and field.message_type.GetOptions().map_entry:
        return f"a table of {_wanted(field.message_type.fields_by_name['value']).partition(' ')[2]}s by name"
    kinds = {
        FieldDescriptor.CPPTYPE_STRING: "bytes" if field.type == FieldDescriptor.TYPE_BYTES else "a string",
        FieldDescriptor.CPPTYPE_BOOL: "true or false",
        FieldDescriptor.CPPTYPE_DOUBLE: "a number",
        FieldDescriptor.CPPTYPE_FLOAT: "a number",
        FieldDescriptor.CPPTYPE_MESSAGE: f"a {field.message_type.name}" if field.message_type else "",
    }
    one = kinds.get(field.cpp_type, "a whole number that fits")
    return f"a list, each item {one}" if field.is_repeated else one


def _shown(value: Any) -> str:
    return f"{value!r:.80} ({type(value).__name__})"
