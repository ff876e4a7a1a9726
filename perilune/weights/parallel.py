"""Work on the parts of a version in threads: numpy, Zstandard and BLAKE3 compute without Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_THREADS = 16  # more wait for memory
WORTH_BYTES = 1 << 22  # with less to look at, handing it to threads takes longer


def num_threads() -> int:
    """Threads to compute with: as many as cores that this process may use."""
    return min(MAX_THREADS, len(os.sched_getaffinity(0)))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads(), "weights")


def in_threads(function: Callable[[T], R], items: Iterable[T], num_bytes: int) -> list[R]:
    """Calls a function with each item; the results in the items' order, or the first one's error.

    Not for functions that call this themselves: they would wait for their own threads.

    Args:
        function: called in several threads at once.
        items: what it is called with.
        num_bytes: of all items; where that is little, they are done in the caller's thread.
    """
    if num_threads() == 1 or num_bytes < WORTH_BYTES:
        return list(map(function, items))
    return list(_pool().map(function, items))
