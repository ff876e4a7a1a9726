"""Steps that are launched as one: what a card does in a step of so many rows is recorded once, and then repeated.

A step is a function without arguments that works on tensors of fixed places. On a card its second call is recorded as a
CUDA graph, and all later ones repeat that: hundreds of launches become one. Elsewhere each call is the function's own.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Hashable
from typing import Any

import torch

logger = logging.getLogger(__name__)


def bucket_sizes(max_rows: int) -> list[int]:
    """Row counts for which steps are recorded: a step of fewer rows is computed as the next larger one.

    >>> bucket_sizes(100)
    [1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 100]
    """
    sizes = {1, 2, 4, 8, *range(16, 129, 16), *range(128, max_rows, 32), max_rows}
    return sorted(size for size in sizes if size <= max_rows)


def bucket_of(num_rows: int, sizes: list[int]) -> int:
    """The size for so many rows."""
    return sizes[bisect_left(sizes, num_rows)]


class RecordedSteps:
    """Steps by what they depend on besides the tensors that they work on."""

    def __init__(self, *, records: bool) -> None:
        """`records`: the functions launch work on a card, and never wait for it."""
        self._records = records
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._stream: torch.cuda.Stream | None = None  # that is recorded
        self._pool: Any = None  # of memory that all graphs share: they never run together

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Does the step once."""
        if self._records and key in self._seen and key not in self._graphs:
            self._record(key, step)
        if key in self._graphs:
            self._graphs[key].replay()
        else:
            step()  # compiles what it needs, and makes what is kept
        self._seen.add(key)

    def forget(self) -> None:
        """The fixed places have moved: all is recorded again."""
        self._seen.clear()
        self._graphs.clear()
        self._pool = None

    def _record(self, key: Hashable, step: Callable[[], None]) -> None:
        """Recording does nothing of it. A step that cannot be recorded is called each time."""
        graph = torch.cuda.CUDAGraph()
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            # Not by `torch.cuda.graph`, which collects garbage each time. Other threads may stage weights meanwhile.
            with torch.cuda.stream(self._stream):
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    step()
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            logger.warning("steps of this model cannot be recorded (%s): they are launched one by one", error)
            self._records = False
            return
        self._pool = self._pool or graph.pool()
        self._graphs[key] = graph
