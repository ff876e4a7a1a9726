"""Says what the engine asks of a layout of keys and values: to hold its samples, and to draw a token for each that
runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.rollout.engines.running_sample import RunningSample


class Row(RunningSample):
    """A sample on its way: waiting, or running."""

    prefix = b""  # with what its slot began, if this version read it
    ended = False  # it was delivered; what it holds is free from the next pass on


@dataclass(frozen=True)
class Drawn:
    """One token of each running sample, on the host. What else a pass records of a token has its place here."""

    rows: Sequence[Row]
    tokens: Sequence[int]
    logprobs: Sequence[float]  # of the distribution that was sampled from, in nats
    full_logprobs: Sequence[float]  # of the whole distribution at temperature 1, in nats


class Decoder(Protocol):
    """Samples with their keys and values. Everything is called on the engine's thread.

    A sample that ended is marked so (`Row.ended`) and leaves with the next pass.
    """

    waiting: deque[Row]  # in the order in which they will be admitted
    weights_stay: bool  # versions are copied into the model's tensors, which keep their places

    @property
    def rows(self) -> Sequence[Row]:
        """The samples that run."""

    def step(self) -> Drawn:
        """Admits waiting samples as far as there is room, and makes one forward pass. There are samples."""

    def swapped(self, *, keeps: bool) -> None:
        """Takes note that the weights changed: no context is shared with what comes.

        Args:
            keeps: running samples go on from what they have read; else they are read again.
        """
