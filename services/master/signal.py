"""A signal that several tasks can wait for, again and again."""

from __future__ import annotations

import asyncio


class Signal:
    """`notify` wakes everyone who waits now; who comes later waits for the next one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """False if the time ran out first."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
