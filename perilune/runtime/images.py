"""Images of prompts out of the blob store: each crosses to a process once, while there is room to keep it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from perilune.runtime.blobs import Blobs
from perilune.runtime.telemetry import meter

CACHE_BYTES = 256 << 20

_fetched = meter.create_counter("perilune.images.fetched", "{image}", "Images fetched from the blob store")
_fetched_bytes = meter.create_counter("perilune.images.fetched_bytes", "By", "Bytes of images fetched from it")


class ImageCache:
    """Encoded images by their digests."""

    def __init__(self, blobs: Blobs, max_bytes: int = CACHE_BYTES) -> None:
        """`max_bytes`: of all that are kept; one that is larger is kept alone."""
        self._blobs, self._max_bytes = blobs, max_bytes
        self._kept: OrderedDict[str, asyncio.Task[bytes]] = OrderedDict()
        self.num_fetched = 0
        self.num_bytes = 0  # fetched
        self._kept_bytes = 0  # of those that have come

    async def get(self, digest: str) -> bytes:
        """The bytes with this SHA-256; several that ask at a time wait for one fetch.

        NotFoundError, InvalidInputError, UnavailableError: as of `Blobs.get`; nothing is kept of a failure.
        """
        if digest not in self._kept:
            self._kept[digest] = asyncio.ensure_future(self._fetch(digest))
        fetching = self._kept[digest]
        self._kept.move_to_end(digest)
        return await asyncio.shield(fetching)

    async def _fetch(self, digest: str) -> bytes:
        try:
            data = await self._blobs.get(digest)
        except BaseException:
            self._kept.pop(digest, None)
            raise
        self.num_fetched += 1
        self.num_bytes += len(data)
        _fetched.add(1)
        _fetched_bytes.add(len(data))
        self._kept_bytes += len(data)
        self._shrink()
        return data

    def _shrink(self) -> None:
        """Drops what was used least recently, where the bytes in hand are too many; those on their way stay."""
        waiting = list[tuple[str, asyncio.Task[bytes]]]()
        while self._kept_bytes > self._max_bytes and self._kept:
            digest, task = self._kept.popitem(last=False)
            if task.done():
                self._kept_bytes -= len(task.result())
            else:
                waiting.append((digest, task))
        for digest, task in reversed(waiting):
            self._kept[digest] = task
            self._kept.move_to_end(digest, last=False)
