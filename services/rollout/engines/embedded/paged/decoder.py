"""Samples in pages: the decoder for a card.

A pass that reads prompts is launched kernel by kernel. A pass of running samples alone repeats a recorded step: tokens,
positions and settings lie on the card and are moved on there, so that nothing is uploaded but what changed among the
rows, and all that comes down is one small array.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perilune.models.machine import give_memory_back
from perilune.models.vision.embedding import has_image_positions
from services.rollout.engines import sampling
from services.rollout.engines.embedded import passes
from services.rollout.engines.embedded.decoder import Drawn, Row
from services.rollout.engines.embedded.paged.blocks import BLOCK_TOKENS, BlockPool, num_blocks
from services.rollout.engines.embedded.paged.pages import (
    Chunk,
    Copy,
    Pages,
    decode_pass,
    mixed_pass,
    pieces_of,
    upload,
)
from services.rollout.engines.embedded.paged.recorded import RecordedSteps, bucket_of, bucket_sizes
from services.rollout.engines.embedded.paged.schedule import Context, Plan, Scheduler
from services.rollout.engines.embedded.settings import kind_of
from services.rollout.engines.embedded.sight import Sight
from services.rollout.engines.sampling import Kind

logger = logging.getLogger(__name__)


class PagedDecoder:
    """See `decoder.Decoder`."""

    weights_stay = True  # recorded steps read them there

    def __init__(
        self, model: Any, pages: Pages, pool: BlockPool, max_running: int, pass_tokens: int, sight: Sight
    ) -> None:
        """
        Args:
            model: set to passes.ATTENTION; its weights stay where they are.
            pages: of `pool`'s blocks.
            pool: all free.
            max_running: samples at once.
            pass_tokens: of prompts, that one pass reads at most.
            sight: the model's.
        """
        self._model, self._pages, self._sight = model, pages, sight
        self._moves_positions = has_image_positions(model)
        self._schedule = Scheduler(pool, max_running, pass_tokens, self._grow)
        self._rows = RowTensors(max_running, num_blocks(max_context(model)), pages.device)
        self._steps = RecordedSteps(records=pages.device.type == "cuda" and pages.kernels.can_record)
        self._sizes = bucket_sizes(max_running)
        self._in_rows: list[Context] = []  # as the tensors have them
        self._kind = Kind(plain=True, truncates=False)

    def __str__(self) -> str:
        num_tokens = self._schedule.pool.size * BLOCK_TOKENS
        return f"attention in pages {self._pages.kernels.name}, room for {num_tokens} tokens"

    @property
    def rows(self) -> Sequence[Row]:
        """Samples that run."""
        return [context.row for context in self._schedule.running]

    @property
    def waiting(self) -> deque[Row]:
        """Samples that wait."""
        return self._schedule.waiting

    @waiting.setter
    def waiting(self, rows: deque[Row]) -> None:
        self._schedule.waiting = rows

    def step(self) -> Drawn:
        """See `decoder.Decoder`. Where the card has no memory for a pass, all is read again, in smaller passes."""
        try:
            return self._step()
        except torch.OutOfMemoryError:
            pass_tokens = self._schedule.shrink_passes()
            if not pass_tokens:
                raise
            logger.warning("the card has no memory for a pass: from now on one reads %d tokens at most", pass_tokens)
        give_memory_back()
        return Drawn([], [], [], [])

    def _step(self) -> Drawn:
        plan = self._schedule.plan()
        running = self._schedule.running
        if not running and not plan.reads:
            return Drawn([], [], [], [])
        size = bucket_of(len(running), self._sizes) if running else 0
        self._update_rows(size)
        if plan.reads or plan.copies or any(context.row.shows_newest for context in running):
            self._read_and_decode(plan, size)
        else:
            self._steps.run((size, self._kind), lambda: self._decode(size))
        return self._rows.drawn([context.row for context in running])

    def swapped(self, *, keeps: bool) -> None:
        """See `decoder.Decoder`."""
        self._schedule.swapped(keeps=keeps)

    def _grow(self, num_blocks: int) -> bool:
        """Makes room for one long sample. Returns whether there was memory for it."""
        try:
            self._pages.grow(num_blocks)
        except torch.OutOfMemoryError:
            num_tokens = self._schedule.pool.size * BLOCK_TOKENS
            logger.warning("the card has no memory for a sample's limit: it ends after %d tokens", num_tokens)
            return False
        self._schedule.pool.grow(num_blocks)
        self._steps.forget()
        return True

    def _update_rows(self, size: int) -> None:
        """Uploads what changed among running samples since the pass before."""
        running = self._schedule.running
        if running != self._in_rows:
            self._kind = kind_of([context.row for context in running])
            self._rows.set(running, size)
        self._rows.set_blocks(running, self._in_rows)
        self._in_rows = list(running)

    def _decode(self, size: int) -> None:
        """Draws one token of each of the first rows; recorded on a card."""
        rows = self._rows
        plan = decode_pass(self._pages, rows.table[:size], rows.positions[:size], rows.is_live[:size])
        tokens, positions = rows.tokens[None, :size], rows.positions[None, :size]
        if self._moves_positions:
            positions = positions + rows.deltas[None, :size]
        rows.draw(passes.forward(self._model, plan, tokens, positions, size), self._kind)

    def _read_and_decode(self, plan: Plan, size: int) -> None:
        running = self._schedule.running
        chunks = [_chunk(read.context, read.start, read.end) for read in plan.reads]
        copies = [Copy(copy.offset, copy.count, copy.start, copy.context.blocks) for copy in plan.copies]
        last = [_chunk(context, context.position, context.position + 1) for context in running]
        arguments = mixed_pass(self._pages, chunks, copies, last, self._rows.table)
        vectors = self._sight.vectors(pieces_of([*chunks, *last]))
        logits_BV = passes.forward(self._model, *arguments, max(1, len(running)), vectors)
        if running:
            self._rows.draw(logits_BV, self._kind)


def _chunk(context: Context, start: int, end: int) -> Chunk:
    """Tokens of a context, with its images."""
    row = context.row
    return Chunk(row.tokens[start:end], start, context.blocks, row.images, row.positions(start, end))


class RowTensors:
    """Describes what the running samples' rows are, on the device, in places that never move."""

    def __init__(self, max_rows: int, max_blocks: int, device: torch.device) -> None:
        self._device = device
        self.table = torch.zeros(max_rows, max_blocks, dtype=torch.int32, device=device)
        self._num_blocks = np.zeros(max_rows, dtype=np.int64)  # of each row that the table has
        # token, position, stream, top_k, is it live, how far the model's position is off, temperature and top_p in one
        self._state = torch.zeros(max_rows, 7, dtype=torch.int64, device=device)
        self.tokens, self.positions, self._streams, self._top_k, self.is_live, self.deltas, _ = self._state.unbind(1)
        self._temperature, self._top_p = self._state[:, 6:].view(torch.float32).unbind(1)
        self._drawn = torch.zeros(max_rows, 3, dtype=torch.float64, device=device)
        self._drawn_here = torch.zeros(max_rows, 3, dtype=torch.float64, pin_memory=device.type == "cuda")

    def set(self, running: Sequence[Context], size: int) -> None:
        """Uploads the first `size` rows: those of running samples, and then rows that are not live."""
        state = np.zeros((size, 7), dtype=np.int64)
        settings = state[:, 6:].view(np.float32)
        settings[:] = 1.0
        for row, context in enumerate(running):
            wanted = context.row.sample.sampling
            stream = context.row.stream.astype(np.int64)
            state[row, :6] = context.row.tokens[-1], context.position, stream, wanted.top_k, 1, context.row.delta
            settings[row] = wanted.temperature, wanted.top_p
        self._state[:size].copy_(upload(state, self._device))

    def set_blocks(self, running: Sequence[Context], before: Sequence[Context]) -> None:
        """Uploads the blocks that came to the rows since they were those of `before`."""
        changes = []
        for row, context in enumerate(running):
            known = self._num_blocks[row] if row < len(before) and before[row] is context else 0
            if len(context.blocks) > known:
                added = np.array(context.blocks[known:], dtype=np.int64)
                columns = np.arange(known, len(context.blocks))
                changes.append(np.stack([np.full(len(added), row), columns, added]))
                self._num_blocks[row] = len(context.blocks)
        if changes:
            rows, columns, added = upload(np.concatenate(changes, 1), self._device)
            self.table[rows, columns] = added.int()

    def draw(self, logits_BV: Tensor, kind: Kind) -> None:
        """Draws a token of each of the first rows, and moves the rows on to it."""
        size = len(logits_BV)
        uniform_B = sampling.uniforms_of(self._streams[:size], self.positions[:size])
        drawn = sampling.draw(
            logits_BV, self._temperature[:size], self._top_p[:size], self._top_k[:size], uniform_B, kind
        )
        self._drawn[:size] = torch.stack([each.double() for each in drawn], 1)
        self.tokens[:size] = drawn[0]
        self.positions[:size] += self.is_live[:size]

    def drawn(self, rows: Sequence[Row]) -> Drawn:
        """Returns what was drawn last of these rows, the first ones: here the host waits for the device."""
        here = self._drawn_here[: len(rows)]
        here.copy_(self._drawn[: len(rows)], non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        tokens, logprobs, full_logprobs = here.T.tolist()
        return Drawn(rows, [int(token) for token in tokens], logprobs, full_logprobs)


def max_context(model: Any) -> int:
    """Tokens that the model's positions reach."""
    return int(model.config.get_text_config().max_position_embeddings)
