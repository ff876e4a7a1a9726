"""Coroutines side by side, with a bound and without leftovers: what still runs is cancelled and awaited at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

T = TypeVar("T")


async def as_finished(work: Iterable[Coroutine[Any, Any, T]], at_once: int) -> AsyncGenerator[T, None]:
    """Results as they come, of at most so many coroutines at once. The first error ends all."""
    running: set[asyncio.Task[T]] = set()
    try:
        for each in work:
            running.add(asyncio.create_task(each))
            while len(running) >= at_once:
                finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    yield task.result()
        for coming in asyncio.as_completed(running):
            yield await coming
    finally:
        await _cancel(running)


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in the order of the work. The first error ends all."""
    running = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*running)
    finally:
        await _cancel(running)


@contextlib.contextmanager
def entered(place: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """An asynchronous context for code that waits, in the thread that calls, so that Ctrl-C reaches that code."""
    with asyncio.Runner() as runner:
        value = runner.run(_enter(place))
        try:
            yield value
        finally:
            runner.run(_leave(place))


async def _enter(place: AbstractAsyncContextManager[T]) -> T:
    return await place.__aenter__()


async def _leave(place: AbstractAsyncContextManager[T]) -> None:
    await place.__aexit__(None, None, None)


async def _cancel(running: Iterable[asyncio.Task[T]]) -> None:
    tasks = list(running)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
