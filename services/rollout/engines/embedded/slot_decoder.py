"""Samples in slots: the decoder for a CPU. Prompts are read whole, and rows are kept in order of their lengths."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from services.rollout.engines import sampling
from services.rollout.engines.embedded.decoder import Drawn, Row
from services.rollout.engines.embedded.settings import RowSettings
from services.rollout.engines.embedded.sight import Piece, Sight, joined_positions
from services.rollout.engines.embedded.slots import Prompt, SeenRows, Slots, num_read

SORT_COST = 3  # of copying a stored position, in those that attention reads
# Prompts are read up to so many tokens a pass, at least one: enough for fast products, and few enough that those who
# write meanwhile, and all after a swap of weights, do not wait long for their next token.
PREFILL_TOKENS = 512


class SlotDecoder:
    """See `decoder.Decoder`."""

    weights_stay = False

    def __init__(self, model: Any, max_running: int, max_cached_tokens: int, sight: Sight) -> None:
        self._model, self._sight = model, sight
        self._max_running = max_running
        self._max_cached_tokens = max_cached_tokens
        self._slots = Slots(max_running, max_cached_tokens, model.device)
        self._settings = RowSettings.of([], model.device)
        self._num_wasted = 0  # positions that attention read for nothing, since rows were last put in order
        self.rows: list[Row] = []
        self.waiting: deque[Row] = deque()

    def __str__(self) -> str:
        return f"attention in slots, room for {self._max_cached_tokens} tokens"

    def step(self) -> Drawn:
        """See `decoder.Decoder`."""
        prompts = self._admit()
        if not self.rows:  # all ended, and none waits
            return Drawn([], [], [], [])
        positions = np.array([len(row.tokens) - 1 for row in self.rows], dtype=np.int64)
        newest = [row.tokens[-1] for row in self.rows]
        seen = seen_rows(self.rows, positions)
        logits_BV = self._slots.forward(self._model, prompts, newest, positions, self._sight, seen)
        uniform_B = torch.from_numpy(sampling.uniforms(self._settings.streams, positions)).to(logits_BV.device)
        drawn = [each.tolist() for each in self._settings.draw(logits_BV, uniform_B)]
        return Drawn(list(self.rows), *drawn)

    def swapped(self, *, keeps: bool) -> None:
        """See `decoder.Decoder`. Slots hold what the version before read: none is copied from any more."""
        self._put_in_order()
        if keeps:
            for row in self.rows:
                row.prefix = b""
        else:
            self.waiting.extendleft(row for row in reversed(self.rows) if not row.ended)
            self.rows = []

    def _admit(self) -> list[Prompt]:
        """Gives free rows to waiting samples, and closes the gaps that stay.

        Returns the prompts to read, without their last token. A prompt that
        begins the slot of a running sample is copied from there instead.
        """
        self._put_in_order()
        holes = deque(row for row, running in enumerate(self.rows) if running.ended)
        num_running = len(self.rows) - len(holes)
        longest = max((running.limit for running in self.rows if not running.ended), default=0)
        cached = {running.prefix: row for row, running in enumerate(self.rows) if not running.ended}
        prompts: dict[bytes, list[int]] = {}
        copies: list[tuple[int, int]] = []
        num_tokens = 0
        while self.waiting and num_running < self._max_running:
            running = self.waiting[0]
            running.prefix = running.key(0, len(running.tokens) - 1)
            if running.prefix not in cached and running.prefix not in prompts:
                num_tokens += len(running.tokens)
            too_much = (num_running + 1) * max(longest, running.limit) > self._max_cached_tokens
            if (num_running and too_much) or (prompts and num_tokens > PREFILL_TOKENS):
                break
            self.waiting.popleft()
            longest = max(longest, running.limit)
            row = holes.popleft() if holes else len(self.rows)
            self.rows[row : row + 1] = [running]
            num_running += 1
            if running.prefix in cached:
                copies.append((cached[running.prefix], row))
            elif running.prefix:
                prompts.setdefault(running.prefix, []).append(row)
        self._slots.reserve(len(self.rows), longest)
        self._slots.copy(copies, max((len(self.rows[row].tokens) for _, row in copies), default=0))
        found = [self._prompt(rows) for rows in prompts.values()]
        self._close_gaps(holes)
        if self._settings.rows != self.rows:
            self._settings = RowSettings.of(self.rows, self._model.device)
        return found

    def _prompt(self, rows: Sequence[int]) -> Prompt:
        """What these rows begin with."""
        row, end = self.rows[rows[0]], len(self.rows[rows[0]].tokens) - 1
        return Prompt(row.tokens[:end], rows, row.images, row.positions(0, end))

    def _close_gaps(self, holes: deque[int]) -> None:
        """The last rows move into holes: a pass computes whatever lies between the first row and the last."""
        moves = []
        while holes:
            last = self.rows.pop()
            if last.ended:
                holes.pop()
                continue
            hole = holes.popleft()
            self.rows[hole] = last
            moves.append((len(self.rows), hole))
        self._slots.copy(moves, max((len(self.rows[hole].tokens) for _, hole in moves), default=0))

    def _put_in_order(self) -> None:
        """Sorts rows by length, once their disorder has cost attention as much reading as sorting them does."""
        lengths = np.array([0 if running.ended else len(running.tokens) for running in self.rows], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        self._num_wasted += num_read(lengths) - num_read(lengths[order])
        if self._num_wasted > SORT_COST * lengths.sum():
            live = [source for source in order.tolist() if not self.rows[source].ended]
            self._slots.copy([(source, row) for row, source in enumerate(live)], int(lengths.max(initial=0)))
            self.rows = [self.rows[source] for source in live]
            self._num_wasted = 0


def seen_rows(rows: Sequence[Row], positions: NDArray[np.int64]) -> SeenRows | None:
    """What images change about running samples, whose newest tokens go to these positions; None if none has any."""
    if not any(row.images for row in rows):
        return None
    pieces = [
        Piece(row.images, len(row.tokens) - 1, len(row.tokens), number)
        for number, row in enumerate(rows)
        if row.shows_newest
    ]
    own = [row.positions(len(row.tokens) - 1, len(row.tokens)) for row in rows]
    return SeenRows(joined_positions(own), pieces)
