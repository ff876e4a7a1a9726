"""Decides whether a version goes whole or as a delta, by what the links and the encoder were measured to do.

A delta is smaller and takes time to make and to apply. Over a slow link that pays; on one machine, or a fast network,
the whole is often there sooner. So the time that either takes until it is served is estimated from what was measured.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

MEASURED_BYTES = 8 << 20  # less is in buffers before its time can be taken
NUM_SENDS = 8  # newest ones, of which the slowest counts: a version is served when the last worker has it
REMEASURE_EVERY = 20  # versions: how much changes depends on the learning rate, which may have fallen


@dataclass(frozen=True)
class Rates:
    """Describes what was measured; None: nothing yet."""

    link: float | None = None  # bytes a second to the slowest subscriber
    coding: float | None = None  # bytes of a version a second, of which a delta was made
    delta_share: float | None = None  # the last delta's bytes, of the whole version's


@dataclass(frozen=True)
class Choice:
    """Describes how a version goes, and why in words."""

    is_delta: bool
    reason: str


def choose(num_bytes: int, rates: Rates) -> Choice:
    """Chooses what is served sooner; a delta where that is not known, for it is measured by making one.

    Applying is taken to be as fast as encoding: both look at every element once.

    >>> choose(1_000, Rates(link=100.0, coding=10_000.0, delta_share=0.01)).reason
    'a delta takes 0.30 s, the whole 10.00 s (link 0.0 MB/s, encoder 0.0 MB/s)'
    """
    if rates.link is None or rates.coding is None or rates.delta_share is None:
        return Choice(True, "link and encoder are not measured yet")
    whole_s = num_bytes / rates.link
    delta_s = 2 * num_bytes / rates.coding + rates.delta_share * whole_s
    speeds = f"link {rates.link / 1e6:.1f} MB/s, encoder {rates.coding / 1e6:.1f} MB/s"
    return Choice(delta_s < whole_s, f"a delta takes {delta_s:.2f} s, the whole {whole_s:.2f} s ({speeds})")


class Measured:
    """The rates of one run's stream. Called by the server's thread and the trainer's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: deque[float] = deque(maxlen=NUM_SENDS)
        self._coding: float | None = None
        self._delta_share: float | None = None
        self._num_whole = 0  # versions that went whole, since a delta was made

    def sent(self, num_bytes: int, seconds: float) -> None:
        """Takes note of a payload that a subscriber took."""
        if num_bytes >= MEASURED_BYTES and seconds > 0:
            with self._lock:
                self._links.append(num_bytes / seconds)

    def encoded(self, num_bytes: int, delta_bytes: int | None, seconds: float) -> None:
        """Takes note of a delta that was made; `delta_bytes` None: it was no smaller than the whole version."""
        with self._lock:
            self._coding = num_bytes / max(seconds, 1e-9)
            self._delta_share = 1.0 if delta_bytes is None else delta_bytes / num_bytes
            self._num_whole = 0

    @property
    def rates(self) -> Rates:
        """Returns what was measured until now."""
        with self._lock:
            return Rates(min(self._links, default=None), self._coding, self._delta_share)

    def choose(self, num_bytes: int) -> Choice:
        """Chooses for the next version. Now and then that is a delta, to measure again."""
        choice = choose(num_bytes, self.rates)
        with self._lock:
            if choice.is_delta or self._num_whole >= REMEASURE_EVERY:
                return Choice(True, choice.reason if choice.is_delta else "a delta is made to measure again")
            self._num_whole += 1
        return choice
