"""JSON Schema, of the draft that a schema names; nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import DecimalException, localcontext
from typing import Any

import jsonschema
import referencing.exceptions
from jsonschema.protocols import Validator
from jsonschema_specifications import REGISTRY
from referencing.jsonschema import DRAFT202012, specification_with

from perilune.errors import InvalidInputError

PRECISION_DIGITS = 2000  # of the remainders that `multipleOf` asks for
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def check_schema(schema: Any) -> None:
    """ValueError says what is wrong with a schema, and where."""
    if not isinstance(schema, dict):
        raise ValueError("a JSON Schema is an object")
    kind = _kind(schema)
    try:
        kind.check_schema(schema, format_checker=kind.FORMAT_CHECKER)  # type: ignore[call-arg]
    except jsonschema.SchemaError as error:
        raise ValueError(f"no JSON Schema: {error.json_path}: {error.message:.200}") from error
    except RecursionError as error:
        raise ValueError("no JSON Schema: nested too deeply") from error
    _check_references(schema)


def violation(schema: dict[str, Any], value: Any) -> str:
    """Returns where a value breaks a schema; empty if nowhere. InvalidInputError if the schema cannot be followed."""
    try:
        with localcontext(prec=PRECISION_DIGITS):
            error = next(iter(_kind(schema)(schema, registry=REGISTRY).iter_errors(value)), None)
    except referencing.exceptions.Unresolvable as unresolvable:
        raise InvalidInputError(f"option 'json_schema': {_unresolvable(unresolvable.ref)}") from unresolvable
    except RecursionError as endless:
        raise InvalidInputError("option 'json_schema': it refers to itself without end") from endless
    except DecimalException as too_large:
        raise InvalidInputError(f"the answer has a number that is too large to check: {too_large!r}") from too_large
    return f"{error.json_path}: {error.message}" if error else ""


def _kind(schema: dict[str, Any]) -> type[Validator]:
    named = schema.get("$schema", _DRAFT)
    kind: type[Validator] | None = _drafts().get(named.rstrip("#")) if isinstance(named, str) else None
    if kind is None:
        raise ValueError(f"the draft {named!r} is not known; give for example {_DRAFT!r}, or leave `$schema` out")
    return kind


def _drafts() -> dict[str, type[Validator]]:
    kinds = (
        jsonschema.Draft3Validator,
        jsonschema.Draft4Validator,
        jsonschema.Draft6Validator,
        jsonschema.Draft7Validator,
        jsonschema.Draft201909Validator,
        jsonschema.Draft202012Validator,
    )
    return {str(kind.META_SCHEMA.get("$id") or kind.META_SCHEMA["id"]).rstrip("#"): kind for kind in kinds}


def _check_references(schema: dict[str, Any]) -> None:
    """Returns what a schema refers to has to be in it. ValueError names what is not."""
    parts = list(_parts(schema))
    if sum("$id" in part or "id" in part for part in parts) > ("$id" in schema or "id" in schema):
        return  # parts with names of their own: looked up when the schema is used
    specification = specification_with(schema.get("$schema", _DRAFT), default=DRAFT202012)
    resolver = REGISTRY.resolver_with_root(specification.create_resource(schema))
    for part in parts:
        for reference in (part[key] for key in _REFERENCES if isinstance(part.get(key), str)):
            try:
                resolver.lookup(reference)
            except referencing.exceptions.Unresolvable as error:
                raise ValueError(f"no JSON Schema: {_unresolvable(reference)}") from error


def _unresolvable(reference: str) -> str:
    return f"{reference!r} is not in the schema, and nothing is fetched; put it under `$defs`"


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects in a schema."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
