"""Writing TOML, which the standard library only reads. What is written here is read back as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

INLINE = ("options",)  # tables that are written on one line
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(document: Mapping[str, Any]) -> str:
    """A document of tables, lists, texts, numbers, true and false as TOML; a key whose value is None is left out.

    >>> print(dumps({"name": "a", "reward": {"graders": [{"name": "exact", "options": {"case": True}}]}}), end="")
    name = "a"
    <BLANKLINE>
    [[reward.graders]]
    name = "exact"
    options = { case = true }
    """
    return "\n".join(_table(document, "")).strip("\n") + "\n"


def _table(table: Mapping[str, Any], name: str) -> Iterator[str]:
    """The lines of a table: its plain values first, for whatever follows a heading belongs to it."""
    given = {key: value for key, value in table.items() if value is not None}
    headed = {
        key: value for key, value in given.items() if key not in INLINE and (_is_table(value) or _is_tables(value))
    }
    for key, value in given.items():
        if key not in headed:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in headed.items():
        path = f"{name}.{_key(key)}" if name else _key(key)
        if _is_tables(value):
            for element in value:
                yield from ("", f"[[{path}]]", *_table(element, path))
        else:
            lines = list(_table(value, path))
            # A heading with nothing of its own under it would say nothing.
            yield from lines if lines and not lines[0] else ("", f"[{path}]", *lines)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(element, Mapping) for element in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return _text(value)
        case int() | float():
            return repr(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            inner = ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items() if each is not None)
            return f"{{ {inner} }}" if inner else "{}"
    raise TypeError(f"{type(value).__name__} is not of the kinds of a recipe")


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's too, which escapes one more character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
