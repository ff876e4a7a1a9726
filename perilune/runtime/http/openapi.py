"""The OpenAPI 3.1 document of a set of methods, out of the protos: their names, types and comments.

Types are those of protobuf's JSON mapping. A message's comment may end in `Example: {…}`, which becomes the example of
its schema and of the methods that use it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import metadata, resources
from itertools import combinations
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from perilune.runtime.http import problems
from perilune.runtime.http.face import JSON, NDJSON, TIMEOUT_HEADER, Method

Schema = dict[str, Any]

_EXAMPLE = "Example: "
_INT64: Schema = {"type": ["integer", "string"], "pattern": "^-?[0-9]{1,19}$", "description": "64 bits; sent as text"}
_DOUBLE: Schema = {"type": "number", "format": "double"}
_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: _DOUBLE,
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32", "minimum": -(1 << 31), "maximum": (1 << 31) - 1},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": (1 << 32) - 1},
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_UINT64: _INT64,
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64", "format": "byte"},
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
}
_PROBLEM: Schema = {
    "type": "object",
    "description": "What went wrong (RFC 9457), with the gRPC code.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and what to do."},
        "code": {"type": "string", "enum": [code.name for code in problems.HTTP_STATUS]},
        "retryAfterMs": {"type": "integer", "description": "When to come again, where that is known."},
    },
    "required": ["type", "title", "status", "detail", "code"],
}
_FAILURES = {
    400: "INVALID_ARGUMENT, OUT_OF_RANGE or FAILED_PRECONDITION: the request is wrong.",
    401: "UNAUTHENTICATED: no token, or one that is not known.",
    403: "PERMISSION_DENIED: the token's roles do not cover this.",
    404: "NOT_FOUND.",
    409: "ALREADY_EXISTS or ABORTED.",
    413: "The body is too large.",
    415: f"The body is not {JSON}.",
    429: "RESOURCE_EXHAUSTED: the quota is spent, or the service is full; see Retry-After.",
    500: "INTERNAL, UNKNOWN or DATA_LOSS: the service's own fault.",
    501: "UNIMPLEMENTED.",
    503: "UNAVAILABLE: try again.",
    504: f"DEADLINE_EXCEEDED: no answer within {TIMEOUT_HEADER}.",
}


def describe(title: str, methods: Sequence[Method], with_auth: bool) -> dict[str, Any]:
    """The document, as JSON values."""
    schemas: dict[str, Schema] = {"Problem": _PROBLEM}
    paths: dict[str, Any] = {}
    for method in methods:
        for message in (method.descriptor.input_type, method.descriptor.output_type):
            _add(message, schemas)
        paths[method.path] = {verb.lower(): _operation(method, verb) for verb in method.http_methods}
    services = {method.service: method.descriptor.containing_service for method in methods}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": metadata.version("perilune"), "description": _INTRODUCTION},
        "tags": [{"name": service.name, "description": _comment(name)} for name, service in services.items()],
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }
    if with_auth:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


_INTRODUCTION = f"""The methods of the gRPC service of the same name, with their messages in protobuf's JSON mapping.
Methods that stream answer with `{NDJSON}`: one message a line, as soon as it is there; should the call fail after
the first, the last line is `{{"problem": …}}`."""


def _operation(method: Method, verb: str) -> Schema:
    taken, given = method.descriptor.input_type, method.descriptor.output_type
    comment = _comment(f"{method.service}.{method.descriptor.name}")
    media_type = NDJSON if method.descriptor.server_streaming else JSON
    content: Schema = {"schema": _reference(given)}
    if (example := _example(given)) is not None:
        content["example"] = example
    operation: Schema = {
        "operationId": f"{verb.lower()}{method.descriptor.name}" if verb == "GET" else method.descriptor.name,
        "tags": [method.descriptor.containing_service.name],
        "summary": comment.partition(".")[0],
        "description": comment,
        "parameters": [
            {
                "name": TIMEOUT_HEADER,
                "in": "header",
                "description": "Milliseconds that the caller will wait.",
                "schema": {"type": "integer", "minimum": 1, "maximum": 9_999_999_999},
            }
        ],
        "responses": {"200": {"description": "One message a line." if media_type == NDJSON else "The answer."}}
        | {str(status): _failure(status, text) for status, text in _FAILURES.items()},
    }
    operation["responses"]["200"]["content"] = {media_type: content}
    if verb == "POST":
        body: Schema = {"schema": _reference(taken)}
        if (example := _example(taken)) is not None:
            body["example"] = example
        operation["requestBody"] = {"required": True, "content": {JSON: body}}
    return operation


def _failure(status: int, description: str) -> Schema:
    codes = (code for code, its_status in problems.HTTP_STATUS.items() if its_status == status)
    code = next(codes, grpc.StatusCode.INVALID_ARGUMENT)  # as which gRPC knows what HTTP has more words for
    example = problems.problem_of(problems.RpcAborted(code, "What is wrong, and what to do.", http_status=status))
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {problems.MEDIA_TYPE: {"schema": schema, "example": example}}}


def _add(message: Descriptor, schemas: dict[str, Schema]) -> None:
    """Adds the schema of a message, and of all that it holds."""
    name = _name(message)
    if name in schemas or message.full_name in _WELL_KNOWN:
        return
    schema: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
    schemas[name] = schema  # before its fields: a message may hold itself
    if text := _comment(message.full_name):
        schema["description"] = text
    if (example := _example(message)) is not None:
        schema["examples"] = [example]
    for field in message.fields:
        schema["properties"][field.json_name] = _field(field, schemas)
    pairs = [pair for choice in message.oneofs for pair in combinations(choice.fields, 2)]
    if pairs:
        both = [{"required": [one.json_name, other.json_name]} for one, other in pairs]
        # With its type, for the page takes a "not" without one for "not anything".
        schema["not"] = {"type": "object"} | (both[0] if len(both) == 1 else {"anyOf": both})


def _field(field: FieldDescriptor, schemas: dict[str, Schema]) -> Schema:
    if field.message_type and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        schema: Schema = {"type": "object", "additionalProperties": _value(value, schemas)}
    elif field.is_repeated:
        schema = {"type": "array", "items": _value(field, schemas)}
    else:
        schema = _value(field, schemas)
    comment = _comment(field.full_name)
    return {**schema, "description": comment} if comment else schema


def _value(field: FieldDescriptor, schemas: dict[str, Schema]) -> Schema:
    if field.message_type:
        _add(field.message_type, schemas)
        return _reference(field.message_type)
    if field.enum_type:
        schemas.setdefault(_name(field.enum_type), _enum(field.enum_type))
        return _reference(field.enum_type)
    return _SCALARS[field.type]


def _enum(enum: EnumDescriptor) -> Schema:
    meanings = [f"- `{value.name}`: {_comment(f'{enum.full_name}.{value.name}')}".rstrip(": ") for value in enum.values]
    description = "\n".join([_comment(enum.full_name), *meanings]).strip()
    return {"type": "string", "enum": [value.name for value in enum.values], "description": description}


def _reference(kind: Descriptor | EnumDescriptor) -> Schema:
    known = _WELL_KNOWN.get(kind.full_name)
    return {"$ref": f"#/components/schemas/{_name(kind)}"} if known is None else known


def _name(kind: Descriptor | EnumDescriptor) -> str:
    """`Score`, or `Comparison.Kind` for what is declared inside."""
    return kind.full_name.removeprefix(f"{kind.file.package}.")


def _comment(full_name: str) -> str:
    """Returns what the proto says about a name, without its example."""
    return _comments().get(full_name, "").partition(_EXAMPLE)[0].strip()


def _example(message: Descriptor) -> Any:
    _, found, example = _comments().get(message.full_name, "").partition(_EXAMPLE)
    return json.loads(example) if found else None


@cache
def _comments() -> dict[str, str]:
    return json.loads(resources.files("perilune.api").joinpath("comments.json").read_text(encoding="utf-8"))
