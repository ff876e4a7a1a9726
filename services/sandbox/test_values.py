"""Values of call tests, from JSON to what the harness compares."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.json_format import MessageToDict

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.errors import InvalidInputError


def call_values(test: api.CallTest) -> tuple[list[Any], Any]:
    """The arguments, as the harness reads them, and the expected value. InvalidInputError if they are no JSON."""
    if test.arguments_json or test.expected_json:
        arguments, expected = _json(test.arguments_json or "[]"), _json(test.expected_json or "null")
        if not isinstance(arguments, list):
            raise InvalidInputError("a call's arguments_json must be a list")
    else:
        arguments = [_whole(value) for value in MessageToDict(test.arguments)] if test.HasField("arguments") else []
        expected = _whole(MessageToDict(test.expected)) if test.HasField("expected") else None
    return [_tagged(argument) for argument in arguments], expected


def also_right(test: api.CallTest) -> list[Any]:
    """Other values that are right. InvalidInputError if they are no JSON."""
    return [_json(value) for value in test.also_expected_json]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"a call's arguments and expected value must be JSON: {error}") from error


def plain(value: Any) -> Any:
    """A returned value as JSON has it: tuples, sets and the like are lists, keys are text.

    LookupError, TypeError, ValueError or RecursionError for what no harness sends.
    """
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value["#"]
    if kind == "undefined":
        return None
    inner = value["is"]
    if kind in ("dict", "map"):
        return {_key(plain(key)): plain(item) for key, item in inner}
    if kind in ("tuple", "list"):
        return [plain(item) for item in inner]
    if kind == "deque":
        return plain(inner[0])
    if kind in ("Counter", "OrderedDict", "defaultdict"):
        return plain(inner)
    if kind in ("set", "frozenset"):
        return sorted((plain(item) for item in inner), key=lambda item: (str(type(item)), item))
    if kind == "float":
        return float(inner)
    if kind == "bigint":
        return int(inner)
    if kind == "array":
        return plain(inner[1])
    raise ValueError(f"a {kind} has no JSON form")


def _key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)


def _tagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, dict):
        return {"#": "dict", "is": [[key, _tagged(item)] for key, item in value.items()]}
    return value


def _whole(value: Any) -> Any:
    """protobuf's JSON numbers are all floats; those without a fraction are meant as integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value
