"""The messages between the program under test and its tests: one JSON value a line, and never code.

Plain values travel as tagged JSON, so that a tuple stays a tuple; objects stay where they are and travel as a number.
"""

from __future__ import annotations

import base64
import collections
import json
import os
import sys
from collections.abc import Callable
from typing import Any

TAG = "#"

Describe = Callable[[Any], Any]  # describes an object that cannot be copied
DescribeDerived = Callable[[Any, Any], Any]  # describes an object that derives from a plain type, given its coded copy
Resolve = Callable[[Any], Any]  # finds or makes what a description stands for

# Operators, as their special methods are called.
UNARY = (
    *("len", "iter", "next", "reversed", "abs", "neg", "pos", "invert", "int", "float", "complex", "index"),
    *("round", "trunc", "floor", "ceil"),
)
BINARY = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("and", "or", "xor", "lshift", "rshift"),
)
COMPARING = ("lt", "le", "gt", "ge")

# Plain types from which a value's class may derive.
IMMUTABLE: tuple[type, ...] = (float, int, str, tuple, bytes, frozenset, complex)
MUTABLE: tuple[type, ...] = (dict, list, set, bytearray)


class Channel:
    """Lines in, lines out, on descriptors that the code under test does not find at 0 and 1."""

    def __init__(self) -> None:
        self._in, self._out = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)  # what is printed is shown with stderr
        os.close(nothing)
        self._rest = b""
        if hasattr(sys, "set_int_max_str_digits"):
            sys.set_int_max_str_digits(0)

    def send(self, message: Any, prefix: bytes = b"") -> None:
        """Writes one message as a line, behind the prefix."""
        line = prefix + json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self._out, line) :]

    def receive(self) -> Any:
        """Waits for the next message; ends the process when the channel is closed."""
        while b"\n" not in self._rest:
            more = os.read(self._in, 1 << 16)
            if not more:
                os._exit(0)  # the sandbox has hung up
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


def encode(value: Any, describe: Describe, describe_derived: DescribeDerived | None = None) -> Any:
    """Encodes a value as JSON.

    An object of a class that derives from a plain type becomes a plain copy, unless `describe_derived` is given.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is list:
        return [encode(item, describe, describe_derived) for item in value]
    mro = type.__getattribute__(kind, "__mro__")
    for base in (*IMMUTABLE, *MUTABLE):
        if base in mro:
            coded = _encode_plain(value, base, lambda item: encode(item, describe, describe_derived))
            if kind is base:
                return coded
            if (kind.__module__, kind.__name__) in _LIBRARY:
                return _tagged(kind.__name__, coded)
            return describe_derived(value, coded) if describe_derived else coded
    if kind is range:
        return _tagged("range", [value.start, value.stop, value.step])
    if kind is slice:
        return _tagged(
            "slice", [encode(part, describe, describe_derived) for part in (value.start, value.stop, value.step)]
        )
    if value is Ellipsis or value is NotImplemented:
        return _tagged("constant", repr(value))
    name = (kind.__module__, kind.__name__)
    if name == ("collections", "deque"):
        return _tagged("deque", [[encode(item, describe, describe_derived) for item in value], value.maxlen])
    if name in _FIELDS:
        return _tagged(
            kind.__name__, [encode(getattr(value, field), describe, describe_derived) for field in _FIELDS[name]]
        )
    if name == ("datetime", "timezone"):
        return _tagged("timezone", [encode(value.utcoffset(None), describe, describe_derived), value.tzname(None)])
    if name == ("zoneinfo", "ZoneInfo") and value.key:
        return _tagged("ZoneInfo", [value.key])
    if name == ("decimal", "Decimal"):
        return _tagged("Decimal", [str(value)])
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        inner = encode(value.tolist(), describe, describe_derived)
        return _tagged("array", [str(value.dtype), inner]) if kind.__name__ == "ndarray" else inner
    return describe(value)


def _encode_plain(value: Any, base: type, encoded: Callable[[Any], Any]) -> Any:
    """Encodes by the plain type's own methods, and not by those of the class that derives from it."""
    if base is float:
        number = float.__float__(value)
        return number if number - number == 0.0 else _tagged("float", repr(number))
    if base is int:
        return int.__int__(value)
    if base is str:
        return str.__str__(value)
    if base is complex:
        return _tagged("complex", [repr(value.real), repr(value.imag)])
    if base in (bytes, bytearray):
        return _tagged(base.__name__, base64.b64encode(bytes(memoryview(value))).decode())
    if base is dict:
        return _tagged("dict", [[encoded(key), encoded(item)] for key, item in dict.items(value)])
    items: Any = base.__iter__  # type: ignore[attr-defined]
    coded = [encoded(item) for item in items(value)]
    return coded if base is list and type(value) is list else _tagged(base.__name__, coded)


def containers(value: Any) -> list[Any]:
    """The plain things in a value that can be changed in place, itself first, in the order in which they are met."""
    if isinstance(value, (set, bytearray)):
        return [value]
    if not isinstance(value, (list, dict, collections.deque)):
        return []
    items = value.values() if isinstance(value, dict) else value
    return [value, *(found for item in items if not isinstance(item, (int, str)) for found in containers(item))]


def is_standard(value: Any) -> bool:
    """True for a type or function of the language or its library, which both sides have."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if (
        not isinstance(module, str)
        or not isinstance(name, str)
        or not isinstance(value, (type, type(len), type(is_standard)))
    ):
        return False
    known = module.partition(".")[0] in getattr(sys, "stdlib_module_names", sys.builtin_module_names)
    return known and module != "__main__" and getattr(sys.modules.get(module), name, None) is value


def decode(value: Any, resolve: Resolve) -> Any:
    """Decodes what `encode` made. ValueError, KeyError, TypeError for what `encode` never makes."""
    if isinstance(value, list):
        return [decode(item, resolve) for item in value]
    if not isinstance(value, dict):
        return value
    kind: Any = value[TAG]
    inner: Any = value.get("is")
    if kind in ("object", "standard", "error"):
        return resolve(value)
    if kind == "dict":
        return {decode(key, resolve): decode(item, resolve) for key, item in inner}
    if kind in _COLLECTIONS:
        return _COLLECTIONS[kind](decode(item, resolve) for item in inner)
    if kind in ("deque", "Counter", "OrderedDict", "defaultdict"):
        return _from_library(kind, decode(inner, resolve))
    if kind == "slice":
        return slice(*decode(inner, resolve))
    if kind == "constant":
        return Ellipsis if inner == "Ellipsis" else NotImplemented
    if kind == "float":
        return float(inner)
    if kind == "complex":
        return complex(float(inner[0]), float(inner[1]))
    if kind == "range":
        return range(*inner)
    if kind in ("bytes", "bytearray"):
        content = base64.b64decode(inner)
        return content if kind == "bytes" else bytearray(content)
    if kind == "array":
        try:
            import numpy
        except ImportError as error:  # no fault of the reader, who has no use for it then
            raise ValueError("there is no numpy on this side") from error
        return numpy.array(decode(inner[1], resolve), dtype=inner[0])
    for module, name in [*_FIELDS, *_BY_ARGUMENTS]:
        if name == kind:
            return getattr(__import__(module), name)(*decode(inner, resolve))
    raise ValueError(f"no value has the tag {kind!r}")


def _from_library(kind: str, inner: Any) -> Any:
    if kind == "deque":
        return collections.deque(*inner)
    found = collections.defaultdict(None) if kind == "defaultdict" else getattr(collections, kind)()
    dict.update(found, inner)
    return found


def _tagged(kind: str, inner: Any) -> Any:
    return {TAG: kind, "is": inner}


_COLLECTIONS: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "list": list,
    "set": set,
    "frozenset": frozenset,
}
_LIBRARY = {("collections", "Counter"), ("collections", "OrderedDict"), ("collections", "defaultdict")}
_FIELDS: dict[tuple[str, str], list[str]] = {
    ("fractions", "Fraction"): ["numerator", "denominator"],
    ("datetime", "date"): ["year", "month", "day"],
    ("datetime", "time"): ["hour", "minute", "second", "microsecond", "tzinfo"],
    ("datetime", "datetime"): ["year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo"],
    ("datetime", "timedelta"): ["days", "seconds", "microseconds"],
}
_BY_ARGUMENTS = [("decimal", "Decimal"), ("datetime", "timezone"), ("zoneinfo", "ZoneInfo")]
