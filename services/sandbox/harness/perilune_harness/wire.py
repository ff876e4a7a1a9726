"""What the program under test and its tests tell each other: one JSON value a line, and never code.

Plain values travel as tagged JSON, so that a tuple stays a tuple; objects stay where they are and travel as a number.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable
from typing import Any

TAG = "#"

Hold = Callable[[Any], Any]  # gives what is told of an object that cannot be copied
Held = Callable[[Any], Any]  # gives what stands for an object that was told of


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
        line = prefix + json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self._out, line) :]

    def receive(self) -> Any:
        while b"\n" not in self._rest:
            more = os.read(self._in, 1 << 16)
            if not more:
                os._exit(0)  # the sandbox has hung up
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


def encode(value: Any, hold: Hold) -> Any:
    """A value as JSON."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is list:
        return [encode(item, hold) for item in value]
    if isinstance(value, float):
        number = float.__float__(value)
        return number if number - number == 0.0 else _tagged("float", repr(number))
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return _tagged("dict", [[encode(key, hold), encode(item, hold)] for key, item in dict.items(value)])
    for copied in (tuple, list, set, frozenset):
        if isinstance(value, copied):
            items: Any = copied.__iter__  # not the program's own
            return _tagged(copied.__name__, [encode(item, hold) for item in items(value)])
    if kind in (bytes, bytearray):
        return _tagged(kind.__name__, base64.b64encode(value).decode())
    if kind is complex:
        return _tagged("complex", [repr(value.real), repr(value.imag)])
    if kind is range:
        return _tagged("range", [value.start, value.stop, value.step])
    name = (kind.__module__, kind.__name__)
    if name == ("collections", "deque"):
        return _tagged("deque", [encode(item, hold) for item in value])
    if name in _FIELDS:
        return _tagged(kind.__name__, [getattr(value, field) for field in _FIELDS[name]])
    if name == ("decimal", "Decimal"):
        return _tagged("Decimal", [str(value)])
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        inner = encode(value.tolist(), hold)
        return _tagged("array", [str(value.dtype), inner]) if kind.__name__ == "ndarray" else inner
    return hold(value)


def decode(value: Any, held: Held) -> Any:
    """The value that `encode` took. ValueError, KeyError, TypeError for what `encode` never makes."""
    if isinstance(value, list):
        return [decode(item, held) for item in value]
    if not isinstance(value, dict):
        return value
    kind: Any = value[TAG]
    inner: Any = value.get("is")
    if kind == "object":
        return held(value)
    if kind == "dict":
        return {decode(key, held): decode(item, held) for key, item in inner}
    if kind in _COLLECTIONS:
        return _COLLECTIONS[kind](decode(item, held) for item in inner)
    if kind == "deque":
        from collections import deque

        return deque(decode(item, held) for item in inner)
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
        return numpy.array(decode(inner[1], held), dtype=inner[0])
    for module, name in [*_FIELDS, ("decimal", "Decimal")]:
        if name == kind:
            return getattr(__import__(module), name)(*inner)
    raise ValueError(f"no value has the tag {kind!r}")


def _tagged(kind: str, inner: Any) -> Any:
    return {TAG: kind, "is": inner}


_COLLECTIONS: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "iterator": lambda items: iter(list(items)),
}
_FIELDS: dict[tuple[str, str], list[str]] = {
    ("fractions", "Fraction"): ["numerator", "denominator"],
    ("datetime", "date"): ["year", "month", "day"],
    ("datetime", "time"): ["hour", "minute", "second", "microsecond"],
    ("datetime", "datetime"): ["year", "month", "day", "hour", "minute", "second", "microsecond"],
    ("datetime", "timedelta"): ["days", "seconds", "microseconds"],
}
