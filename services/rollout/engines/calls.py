"""Calls from any thread that an engine makes on its own thread, in the order in which they came."""

from __future__ import annotations

import queue
from collections.abc import Callable
from functools import partial
from typing import ParamSpec

P = ParamSpec("P")


class Calls:
    """A queue of calls. `put` from any thread; the others are for the engine's own."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def put(self, function: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> None:
        """Has the engine's thread call a function."""
        self._waiting.put(partial(function, *arguments, **named))

    def wake(self) -> None:
        """Ends the thread's wait for a call."""
        self._waiting.put(lambda: None)

    def make_next(self, wait_s: float | None = None) -> None:
        """Makes one call; waits for it at most so long, or until there is one."""
        try:
            call = self._waiting.get(timeout=wait_s)
        except queue.Empty:
            return
        call()

    def make_all(self) -> None:
        """Makes the calls that are there."""
        while not self._waiting.empty():
            self.make_next()
