"""A notification that several tasks can wait for, again and again, and that none of them can miss."""

from __future__ import annotations

import asyncio


class Notification:
    """Read `count` before looking at what may have changed, then wait with it: news that came meanwhile return at once.

    Without the count, a notification between the look and the wait would be lost.
    """

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Counts one more event, and wakes all that wait."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int, timeout_s: float | None = None) -> bool:
        """Returns when `count` differs from `seen`; False if the time ran out first."""
        if self.count != seen:
            return True
        try:
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the news.
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True
