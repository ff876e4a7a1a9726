"""Reading what a program says: always all of it, so that it never blocks on us; never more than allowed kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from services.sandbox.job import Output

_CHUNK_BYTES = 1 << 16


class Drain:
    """One stream of a job, read as it comes. `ended` is done when the last writer is gone."""

    def __init__(self, descriptor: int, limit_bytes: int, on_excess: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._limit_bytes = limit_bytes
        self._on_excess = on_excess
        self._kept = bytearray()
        self._num_bytes = 0
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def output(self) -> Output:
        """The output so far, cut at the limit."""
        return Output(bytes(self._kept), self._num_bytes)

    async def finish(self) -> None:
        """Waits until all is read; to be called when every writer has been ended."""
        await self.ended

    def close(self) -> None:
        """Stops reading and closes the descriptor."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if not self.ended.done():
            self.ended.set_result(None)

    def take(self, data: bytes) -> None:
        """Keeps what the limit allows of the next bytes."""
        was_within = self._num_bytes <= self._limit_bytes
        self._kept += data[: max(0, self._limit_bytes - len(self._kept))]
        self._num_bytes += len(data)
        if was_within and self._num_bytes > self._limit_bytes:
            self._on_excess()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:  # a socket whose other side died with something unread
            data = b""
        if data:
            self.take(data)
        else:
            self.close()


class Lines(Drain):
    """A stream that is read line by line while the program runs; a program that is ahead of its reader waits.

    The limit holds for one line, and for what may wait to be read.
    """

    def __init__(self, descriptor: int, limit_bytes: int, on_excess: Callable[[], None]) -> None:
        self._waiting = bytearray()
        self._changed = asyncio.Event()
        super().__init__(descriptor, limit_bytes, on_excess)

    def output(self) -> Output:
        """The output that was not read."""
        return Output(bytes(self._waiting), len(self._waiting))

    def take(self, data: bytes) -> None:
        """Buffers output for the reader of lines."""
        self._waiting += data
        self._changed.set()
        if len(self._waiting) > self._limit_bytes:
            self._loop.remove_reader(self._descriptor)
            if b"\n" not in self._waiting:
                self._on_excess()

    async def finish(self) -> None:
        """Stops reading; nothing is waited for."""
        self.close()

    def close(self) -> None:
        """Stops reading and wakes the reader."""
        super().close()
        self._changed.set()

    async def next_line(self) -> bytes:
        """The next line with its newline, or what is left at the end. ValueError: it is longer than the limit."""
        while True:
            end = self._waiting.find(b"\n") + 1
            if end or self.ended.done():
                break
            if len(self._waiting) > self._limit_bytes:
                raise ValueError(f"the program wrote a line of more than {self._limit_bytes} bytes")
            self._changed.clear()
            await self._changed.wait()
        line = bytes(self._waiting[: end or None])
        del self._waiting[: end or None]
        if self._descriptor >= 0 and len(self._waiting) <= self._limit_bytes:
            self._loop.add_reader(self._descriptor, self._read)
        return line
