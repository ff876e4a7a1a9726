"""Prompts are read in a few threads of their own, with a deadline: what hangs holds up no other run or work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

from perilune.errors import OverloadedError, UnavailableError

T = TypeVar("T")

NUM_READERS = 8
MAX_WAITING = 64
DEADLINE_S = 120.0


class Readers:
    """Does blocking work on recipes' data. What hangs keeps its place, and is left behind when the process ends."""

    def __init__(self, num_readers: int = NUM_READERS, deadline_s: float = DEADLINE_S) -> None:
        self._places = asyncio.Semaphore(num_readers)
        self._deadline_s = deadline_s
        self._num_waiting = 0

    async def read(self, work: Callable[..., T], *arguments: object) -> T:
        """Returns or raises what the work does.

        Raises:
            UnavailableError: it did not come to an end in time.
            OverloadedError: too much waits already.
        """
        if self._num_waiting >= MAX_WAITING:
            raise OverloadedError(f"prompts of {self._num_waiting} runs are being read already", retry_after_s=5.0)
        self._num_waiting += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._places.acquire()
                return await asyncio.shield(asyncio.wrap_future(self._begin(work, arguments)))
        except TimeoutError as error:
            raise UnavailableError(
                f"the prompts could not be read within {self._deadline_s:g} s: is their file system there, "
                "and are they not too many?"
            ) from error
        finally:
            self._num_waiting -= 1

    def _begin(self, work: Callable[..., T], arguments: tuple[object, ...]) -> Future[T]:
        """Starts a thread, which no exit of the process waits for."""
        future: Future[Any] = Future()
        loop = asyncio.get_running_loop()

        def do() -> None:
            try:
                future.set_result(work(*arguments))
            except BaseException as error:  # noqa: BLE001 `read` raises it
                future.set_exception(error)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._places.release)

        Thread(target=do, name="prompts", daemon=True).start()
        return future
