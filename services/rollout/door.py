"""Says which groups are sampled side by side, and which alone.

A worker that dies, or whose engine breaks, takes down all that it held, and at most one of those groups is why. So a
group that was delivered before more than once is sampled with no other beside it. Each such trial is noted on the bus
before it begins, and taken back when it ends in any other way: only deaths that a group must have caused count against
it. After each, it waits a little longer before it is tried again, and other groups are done meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from perilune.errors import InvalidInputError, UnavailableError
from perilune.runtime.bus import Bus, Delivery

logger = logging.getLogger(__name__)

TOGETHER = 2  # deliveries after which a group is tried alone
MAX_TRIALS = 4  # that ended with the worker's death
BACK_OFF_S = 5.0  # for each trial that ended so, before the next


class Door:
    """The way into the engine.

    `changed` is notified when a group leaves, and when the engine serves a new version; `is_broken` says whether the
    engine has ended.
    """

    def __init__(self, bus: Bus, changed: asyncio.Condition, is_broken: Callable[[], bool]) -> None:
        self._bus, self._changed, self._is_broken = bus, changed, is_broken
        self._num_inside = 0
        self._is_trial = False

    @contextlib.asynccontextmanager
    async def through(self, delivery: Delivery[Any], is_served: Callable[[], bool]) -> AsyncIterator[None]:
        """Waits until the engine serves what the group needs and there is nothing that it may not meet.

        InvalidInputError if the group has ended a worker each time that it was tried alone.
        """
        is_suspect = delivery.num_deliveries > TOGETHER
        num_trials = await self._bus.num_trials(delivery) if is_suspect else 0
        if num_trials >= MAX_TRIALS:
            raise InvalidInputError(f"it was sampled alone {num_trials} times, and each time its worker died")
        await asyncio.sleep(BACK_OFF_S * num_trials)
        async with self._changed:
            await self._changed.wait_for(lambda: is_served() and not self._is_trial)
            self._is_trial = is_suspect
            self._num_inside += not is_suspect
        try:
            async with self._trial(delivery, num_trials) if is_suspect else contextlib.nullcontext():
                yield
        finally:
            async with self._changed:
                self._is_trial = self._is_trial and not is_suspect
                self._num_inside -= not is_suspect
                self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def _trial(self, delivery: Delivery[Any], num_trials: int) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._num_inside)
        logger.info("a group that was delivered %d times is sampled alone", delivery.num_deliveries)
        await self._bus.note_trials(delivery, num_trials + 1)
        try:
            yield
        finally:
            if not self._is_broken():
                try:
                    await self._bus.note_trials(delivery, 0)
                except UnavailableError as error:
                    logger.warning("%s", error)
