"""Says what the engine asks of a layout of keys and values: to hold its samples, and to draw a token for each that
runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perilune.models.vision import PlacedImage
from services.rollout.engines.running_sample import RunningSample


class Row(RunningSample):
    """A sample on its way: waiting, or running."""

    prefix = b""  # with what its slot began, if this version read it
    ended = False  # it was delivered; what it holds is free from the next pass on
    # Positions in time, height and width of the tokens that it came with, (3, T), where their order does not say all.
    own_positions: NDArray[np.int64] | None = None

    @property
    def images(self) -> Sequence[PlacedImage]:
        """The images of its prompt."""
        return self.sample.images

    @property
    def shows_newest(self) -> bool:
        """Tests whether its last token is a slot of an image."""
        return bool(self.images) and len(self.tokens) <= self.images[-1].end

    @property
    def delta(self) -> int:
        """Returns how far positions behind its images are from the order of tokens."""
        own = self.own_positions
        return 0 if own is None else int(own.max()) + 1 - own.shape[1]

    def positions(self, start: int, end: int) -> NDArray[np.int64]:
        """The positions of its tokens from one to another, as the model has them: (N,), or (3, N)."""
        order, own = np.arange(start, end), self.own_positions
        if own is None:
            return order
        known = own[:, start:end]
        behind = np.broadcast_to(order[known.shape[1] :] + self.delta, (3, len(order) - known.shape[1]))
        return np.concatenate([known, behind], 1)

    def key(self, start: int, end: int) -> bytes:
        """Stands for its tokens from one to another and the images that lie there."""
        shown = [each.digest.encode() for each in self.images if each.start < end and each.end > start]
        return np.array(self.tokens[start:end], dtype=np.int32).tobytes() + b"".join(shown)


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
