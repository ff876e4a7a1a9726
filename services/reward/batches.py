"""Many scores at once, each given as soon as it is there, without one holding up the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

SLOW_S = 0.25  # work that takes longer makes room for the next, and goes on beside it


async def as_finished(
    works: Sequence[Callable[[], Coroutine[Any, Any, T]]], window: int
) -> AsyncIterator[tuple[int, T]]:
    """Does the works and yields (index, result) of each as it ends; the first to raise ends all. At most `window` are
    under way, and those that turned out slow: a batch leaves room for others, and a stuck one holds up no other."""
    places = asyncio.Semaphore(window)
    finished: asyncio.Queue[tuple[int, asyncio.Task[T]]] = asyncio.Queue()
    running: set[asyncio.Task[T]] = set()

    async def start_all() -> None:
        for index, work in enumerate(works):
            await places.acquire()
            task = asyncio.create_task(work())
            running.add(task)
            task.add_done_callback(_Place(places).give_back)
            task.add_done_callback(lambda task, index=index: finished.put_nowait((index, task)))  # type: ignore[misc]

    starting = asyncio.create_task(start_all())
    try:
        for _ in works:
            index, task = await finished.get()
            running.discard(task)
            yield index, task.result()
    finally:
        for each in (starting, *running):
            each.cancel()
        await asyncio.gather(starting, *running, return_exceptions=True)


class _Place:
    """A place among those under way; given back when the work is done or slow, whatever is first."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._is_held = True
        self._timer = asyncio.get_running_loop().call_later(SLOW_S, self.give_back)

    def give_back(self, *_: object) -> None:
        if self._is_held:
            self._is_held = False
            self._timer.cancel()
            self._places.release()
