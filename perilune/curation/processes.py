"""Work on many rows by all processors: chunks go to processes, what they give comes back in order."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

from perilune.curation.workspace import batched

T = TypeVar("T")
R = TypeVar("R")

CHUNK_ROWS = 4096
MIN_ROWS = 20_000  # fewer are done here: processes take a second to start
_shared: Any = None  # in a worker process


def in_chunks(function: Callable[[Any, list[T]], R], shared: Any, items: Iterable[T], num_items: int) -> Iterator[R]:
    """Returns what a function makes of each chunk of items, in their order.

    Args:
        function: of a module, called with `shared` and a chunk.
        shared: sent to each process once.
        items: pickled on their way to a process.
        num_items: decides whether processes are started.
    """
    chunks = batched(items, CHUNK_ROWS)
    num_processes = os.process_cpu_count() or 1 if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    if num_items < MIN_ROWS or num_processes < 2:
        yield from (function(shared, chunk) for chunk in chunks)
        return
    # Forked processes would hold the locks of gRPC's threads.
    pool = ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn"), _begin, (shared,))
    waiting: collections.deque[Future[R]] = collections.deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_work, function, chunk))
            if len(waiting) > 2 * num_processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(shared: Any) -> None:
    global _shared  # noqa: PLW0603 - a process of a pool has no other place
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command's own process ends the pool


def _work(function: Callable[[Any, list[T]], R], chunk: list[T]) -> R:
    return function(_shared, chunk)
