"""`--set key.path=value`: one change to a document that was read from TOML, by the rules of its schema.

trainer.learning_rate=1e-5        a value in TOML's notation
description=two words             what is no TOML, or no value that the key takes, is text where the key takes text
reward.graders.0.weight=2         an element of a list, by its index; reward.graders[0].weight=2 says the same
stages=                           nothing behind `=` removes the key, or the element
"""

from __future__ import annotations

import copy
import datetime
import difflib
import re
import tomllib
import types
import typing
from typing import Any

from pydantic import BaseModel

from perilune.errors import RecipeError

Part = str | int  # a key of a table, or an index of a list

_PART = re.compile(r'\.?(?:(?P<key>[A-Za-z0-9_-]+)|"(?P<quoted>[^"]+)"|\[(?P<index>\d+)\])')
_EXAMPLE = "write key.path=value, for example trainer.learning_rate=1e-5"


def apply_override(document: dict[str, Any], override: str, schema: type[BaseModel]) -> None:
    """Changes the document in place. RecipeError says what is wrong with the override, and what there is."""
    key, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"{override!r} is no override; {_EXAMPLE}")
    path = _read_path(key.strip(), override)
    container: Any = document
    for depth in range(len(path) - 1):
        container = _enter(container, path[: depth + 1], schema, override)
    _check_place(container, path, override)
    if text.strip():
        value = read_value(text, annotations_at(schema, path))
        container[_place(container, path[-1])] = value
    else:
        _remove(container, path, schema, override)


def read_value(text: str, annotations: list[Any]) -> Any:
    """The value that a text stands for where a key with these annotations is.

    >>> read_value("7", [int]), read_value("7", [str]), read_value("0 o'clock", [str])
    (7, '7', "0 o'clock")
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text  # a bare word is text
    value = parsed.pop("value")
    takes_text = any(str in _scalars(annotation) for annotation in annotations)
    takes_value = not parsed and (not annotations or any(_takes(annotation, value) for annotation in annotations))
    is_time = isinstance(value, datetime.date | datetime.time)
    return text if parsed or is_time or (takes_text and not takes_value) else value


def annotations_at(schema: Any, path: typing.Sequence[Part]) -> list[Any]:
    """Returns what the schema says of the value at a path: several annotations where a table is one of several."""
    found: list[Any] = [schema]
    for part in path:
        found = [inner for annotation in found for inner in _inside(annotation, part)]
    return found


def known_keys(schema: Any, path: typing.Sequence[Part]) -> list[str]:
    """The keys that the table at a path may have."""
    return [key for annotation in annotations_at(schema, path) for table in _tables(annotation) for key in table]


def _read_path(key: str, override: str) -> list[Part]:
    path: list[Part] = []
    end = 0
    while found := _PART.match(key, end):
        end = found.end()
        name = found["key"] or found["quoted"]
        path.append(int(found["index"]) if name is None else int(name) if name.isdigit() and path else name)
    if not path or end < len(key) or key.startswith("."):
        raise RecipeError(f"{override!r}: {key!r} is no key; {_EXAMPLE}, or reward.graders.0.weight=2")
    return path


def _enter(container: Any, path: list[Part], schema: type[BaseModel], override: str) -> Any:
    """Returns what lies at the last part of the path; a table or a default list that the file leaves out is put
    there."""
    _check_place(container, path, override)
    place = _place(container, path[-1])
    if isinstance(container, dict) and place not in container:
        container[place] = _default(schema, path)
    if isinstance(container[place], str) and "type" in known_keys(schema, path):
        container[place] = {"type": container[place]}  # what the text stands for, where it may stand for a table
    return container[place]


def _place(container: Any, part: Part) -> Any:
    return str(part) if isinstance(container, dict) else part


def _check_place(container: Any, path: list[Part], override: str) -> None:
    """RecipeError unless the last part of the path can be looked up, or put, where it is."""
    *outer, part = path
    where = name_of(outer)
    if isinstance(container, list):
        if not isinstance(part, int):
            raise RecipeError(f"{override!r}: {where} is a list; write {where}.0.{part} for its first element")
        if part >= len(container):
            there = f"elements 0 to {len(container) - 1}" if len(container) > 1 else f"{len(container)} element"
            hint = ", 0" if len(container) == 1 else ""
            raise RecipeError(f"{override!r}: {where} has {there}{hint}; to add one, set the whole list")
    elif not isinstance(container, dict):
        raise RecipeError(f"{override!r}: {where} is a value, not a table")


def _remove(container: Any, path: list[Part], schema: type[BaseModel], override: str) -> None:
    place = _place(container, path[-1])
    if isinstance(container, list) or place in container:
        del container[place]
    elif not annotations_at(schema, path):
        known = sorted({*container, *known_keys(schema, path[:-1])})
        near = difflib.get_close_matches(str(place), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here are {', '.join(known)}"
        raise RecipeError(f"{override!r}: there is no {name_of(path)} to remove; {hint}")


def name_of(path: typing.Sequence[Part]) -> str:
    """A path as it is written in messages.

    >>> name_of(["reward", "graders", 0, "name"])
    'reward.graders.0.name'
    """
    return ".".join(map(str, path))


def _default(schema: type[BaseModel], path: list[Part]) -> Any:
    """Returns what the schema puts at a path that the file leaves out, where that is a list; else an empty table."""
    for annotation in annotations_at(schema, path[:-1]):
        for table in models_in(annotation):
            field = table.model_fields.get(str(path[-1]))
            if field is not None and isinstance(field.default, list | tuple):
                return copy.deepcopy(list(field.default))
    return {}


def _inside(annotation: Any, part: Part) -> list[Any]:
    """The annotations of what a value of this annotation holds under a key or an index."""
    if tables := models_in(annotation):
        return [table.model_fields[part].annotation for table in tables if part in table.model_fields]
    arguments = typing.get_args(annotation)
    match typing.get_origin(annotation):
        case origin if origin is dict:
            return [arguments[1]]
        case origin if origin is list:
            return [arguments[0]] if isinstance(part, int) else []
        case origin if origin is tuple:
            return list(arguments)
        case _:
            return [inner for argument in arguments for inner in _inside(argument, part)]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The tables that a value of this annotation may be."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    if typing.get_origin(annotation) in (list, dict, tuple):
        return []
    return [table for argument in typing.get_args(annotation) for table in models_in(argument)]


def _tables(annotation: Any) -> list[dict[str, Any]]:
    return [dict(table.model_fields) for table in models_in(annotation)]


def _scalars(annotation: Any) -> set[type]:
    """The plain types among what an annotation allows."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return {annotation}
    if typing.get_origin(annotation) is typing.Literal:
        return {type(choice) for choice in typing.get_args(annotation)}
    if typing.get_origin(annotation) in (list, dict, tuple):
        return set()
    return {scalar for argument in typing.get_args(annotation) for scalar in _scalars(argument)}


def _takes(annotation: Any, value: Any) -> bool:
    """Tests whether a value is of a kind that an annotation allows; its size and its inside are not looked at."""
    if isinstance(value, dict):
        return bool(models_in(annotation)) or _has_origin(annotation, (dict,))
    if isinstance(value, list):
        return _has_origin(annotation, (list, tuple))
    allowed = _scalars(annotation)
    return type(value) in allowed or (type(value) is int and float in allowed)


def _has_origin(annotation: Any, origins: tuple[type, ...]) -> bool:
    return typing.get_origin(annotation) in origins or any(
        _has_origin(argument, origins)
        for argument in typing.get_args(annotation)
        if typing.get_origin(annotation) not in (list, dict, tuple, typing.Literal)
    )
