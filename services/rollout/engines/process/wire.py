"""Frames between a rollout worker and its engine's process: a JSON head and plain arrays.

To the engine's process go commands: `StartEngine`, `Load`, `Submit`, `Abort`. From it come events: `Ready`, `Loaded`,
`Drawn`, `Failed`. That is the whole conversation. The process may run in another environment than the worker, so the
frames are made of nothing but the standard library and numpy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from multiprocessing.connection import Connection
from typing import get_args

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StartEngine:
    """Make an engine; the first command."""

    engine: str  # its type
    folder: str  # with the model's small files; weights come by `Load`
    dtype: str  # torch's name of what to hold and compute in
    max_running: int
    kv_cache_bytes: int
    end_tokens: list[int]
    options: Mapping[str, str | int | float | bool | None]  # the engine's own keys, as the recipe has them


@dataclass(frozen=True)
class TensorPlace:
    """Describes where a tensor lies in the weights' file."""

    name: str
    dtype: str  # torch's name
    shape: list[int]
    offset: int


@dataclass(frozen=True)
class Load:
    """Take this version in between two steps. The file stays as it is until a later version is loaded."""

    serial: int  # counts loads; what is drawn from then on carries it
    path: str
    places: list[TensorPlace]


@dataclass(frozen=True)
class Submit:
    """Requests, their arrays in parallel. `tokens` are those of all, one after the other."""

    refs: list[int]
    num_tokens: list[int]
    max_new_tokens: list[int]
    streams: list[int]  # of random numbers: `sampling.stream_of`
    temperatures: list[float]
    top_ps: list[float]
    top_ks: list[int]
    tokens: NDArray[np.int32] = field(metadata={"dtype": np.int32})
    # Of each request: [number of the image, first token, end, first slot] for every image that it shows.
    images: list[list[list[int]]] = field(default_factory=list)
    image_bytes: list[int] = field(default_factory=list)  # how many each image has
    image_data: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8), metadata={"dtype": np.uint8})


@dataclass(frozen=True)
class Abort:
    """End these requests where they are."""

    refs: list[int]


@dataclass(frozen=True)
class Ready:
    """The engine is made; it waits for its first version."""

    max_context: int


@dataclass(frozen=True)
class Loaded:
    """A version is in place: what is drawn from now on is of it."""

    serial: int


@dataclass(frozen=True)
class Drawn:
    """New tokens, in order; a request may have several. All of one version."""

    serial: int
    refs: NDArray[np.int32] = field(metadata={"dtype": np.int32})
    tokens: NDArray[np.int32] = field(metadata={"dtype": np.int32})
    logprobs: NDArray[np.float32] = field(metadata={"dtype": np.float32})
    full_logprobs: NDArray[np.float32] = field(metadata={"dtype": np.float32})


@dataclass(frozen=True)
class Failed:
    """The last word of a process that cannot go on."""

    reason: str


Command = StartEngine | Load | Submit | Abort
Event = Ready | Loaded | Drawn | Failed
KINDS: dict[str, type] = {kind.__name__: kind for kind in (*get_args(Command), *get_args(Event))}


def send(connection: Connection, frame: Command | Event) -> None:
    """OSError if the other side is gone."""
    connection.send_bytes(encode(frame))


def receive(connection: Connection) -> Command | Event:
    """Waits for the next frame. EOFError or OSError if the other side is gone."""
    return decode(connection.recv_bytes())


def encode(frame: Command | Event) -> bytes:
    """Writes a frame: a line of JSON, then the bytes of its arrays."""
    arrays = [part.name for part in fields(frame) if "dtype" in part.metadata]
    values: Sequence[NDArray] = [getattr(frame, name) for name in arrays]
    head = {part.name: getattr(frame, part.name) for part in fields(frame) if part.name not in arrays}
    head["places"] = [asdict(place) for place in frame.places] if isinstance(frame, Load) else None
    line = json.dumps([type(frame).__name__, head, [len(value) for value in values]])
    return b"".join([line.encode(), b"\n", *(value.tobytes() for value in values)])


def decode(message: bytes) -> Command | Event:
    """Reads a frame that `encode` wrote."""
    end = message.index(b"\n")
    name, head, lengths = json.loads(message[:end])
    kind, places = KINDS[name], head.pop("places")
    if places is not None:
        head["places"] = [TensorPlace(**place) for place in places]
    start = end + 1
    for part, length in zip([part for part in fields(kind) if "dtype" in part.metadata], lengths, strict=True):
        head[part.name] = np.frombuffer(message, part.metadata["dtype"], length, start)
        start += head[part.name].nbytes
    return kind(**head)
