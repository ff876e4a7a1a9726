"""`python -m services.rollout.engines.process.child DRIVER DESCRIPTOR`: an engine's process.

It takes commands between two steps, never during one: that is what makes a version's boundary a token boundary. A
driver, named as module:class, is what one engine library needs to be steered so. The process ends when its worker does,
and an error ends it: the worker starts another.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.rollout.engines.process import wire


@dataclass(frozen=True)
class Shown:
    """An image of a prompt."""

    data: bytes  # encoded
    start: int  # of its ids in the tokens
    end: int
    first_slot: int


@dataclass(frozen=True)
class Request:
    """One sample, as a driver takes it."""

    ref: int
    tokens: list[int]  # prompt and response so far
    max_new_tokens: int
    stream: int
    temperature: float
    top_p: float
    top_k: int
    images: tuple[Shown, ...] = ()


@dataclass(frozen=True)
class Token:
    """One drawn token: see `base.Span` for what its log-probabilities are."""

    ref: int
    token: int
    logprob: float
    full_logprob: float


class Driver(Protocol):
    """An engine library that is steered. Made from `wire.StartEngine`; its first weights come by `load`."""

    @property
    def max_context(self) -> int:
        """Tokens of prompt and response together that the engine can read."""

    @property
    def has_work(self) -> bool:
        """Tests whether `step` has something to do."""

    def add(self, request: Request) -> None:
        """Queues a request."""

    def abort(self, refs: Sequence[int]) -> None:
        """Ends requests where they are. Unknown ones are ignored."""

    def load(self, version: wire.Load) -> list[Token]:
        """Puts a version in place, whose tensors `weight_file.read_tensors` maps.

        Later requests find nothing of the old one in caches, and running ones are read again unless the options keep
        contexts. Returns tokens that the old version drew and no step has returned yet.

        ValueError if the tensors are not the model's.
        """

    def step(self) -> list[Token]:
        """Draws tokens. A request ends by itself at an end token or its limit."""


def serve(driver_place: str, connection: Connection) -> None:
    """Serves until the other side is gone. `driver_place` is module:class."""
    start = wire.receive(connection)
    assert isinstance(start, wire.StartEngine)
    module, _, attribute = driver_place.partition(":")
    driver: Driver = getattr(import_module(module), attribute)(start)
    wire.send(connection, wire.Ready(driver.max_context))
    serial = -1
    while True:
        while connection.poll(0 if driver.has_work else None):
            match wire.receive(connection):
                case wire.Load() as load:
                    _send_drawn(connection, serial, driver.load(load))
                    serial = load.serial
                    wire.send(connection, wire.Loaded(serial))
                case wire.Submit() as submit:
                    for request in requests(submit):
                        driver.add(request)
                case wire.Abort() as abort:
                    driver.abort(abort.refs)
        _send_drawn(connection, serial, driver.step())


def _send_drawn(connection: Connection, serial: int, drawn: Sequence[Token]) -> None:
    if drawn:
        arrays = (
            np.array([each.ref for each in drawn], dtype=np.int32),
            np.array([each.token for each in drawn], dtype=np.int32),
            np.array([each.logprob for each in drawn], dtype=np.float32),
            np.array([each.full_logprob for each in drawn], dtype=np.float32),
        )
        wire.send(connection, wire.Drawn(serial, *arrays))


def requests(submit: wire.Submit) -> list[Request]:
    """The requests of a frame, one by one."""
    ends = np.cumsum(submit.num_tokens)
    tokens: list[NDArray[np.int32]] = np.split(submit.tokens, ends[:-1])
    rows = zip(
        submit.refs,
        [each.tolist() for each in tokens],
        submit.max_new_tokens,
        submit.streams,
        submit.temperatures,
        submit.top_ps,
        submit.top_ks,
        _shown(submit),
        strict=True,
    )
    return [Request(*row) for row in rows]


def _shown(submit: wire.Submit) -> list[tuple[Shown, ...]]:
    """The images of each request."""
    ends = np.cumsum(submit.image_bytes, dtype=np.int64)
    data = [each.tobytes() for each in np.split(submit.image_data, ends[:-1])] if len(ends) else []
    shown = submit.images or [[] for _ in submit.refs]
    return [tuple(Shown(data[number], *place) for number, *place in own) for own in shown]


def main() -> None:
    """Serves the worker whose connection the second argument is, with the driver that the first one names."""
    connection = Connection(int(sys.argv[2]))
    try:
        serve(sys.argv[1], connection)
    except (EOFError, ConnectionError):
        return  # the worker is gone
    except BaseException as error:  # the worker must learn why
        wire.send(connection, wire.Failed(f"{type(error).__name__}: {error}"))
        raise


if __name__ == "__main__":
    main()
