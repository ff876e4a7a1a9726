"""Keeps the streams of the bus declared: a server that was given an empty store gets them again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from perilune.errors import UnavailableError
from perilune.runtime.bus import Bus

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0


async def keep_streams(bus: Bus, ask_again: Callable[[Sequence[str]], Awaitable[None]]) -> None:
    """Looks again and again whether the streams are there, for as long as the master runs.

    Where some are missing, declares them and calls `ask_again` with their names: what was on them is lost. A bus that
    does not answer is looked at again.
    """
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            missing = await bus.missing_streams()
            if missing:
                await bus.declare()
        except UnavailableError as error:  # the fleet's watch names it
            logger.debug("%s", error)
            continue
        if missing:
            await ask_again(missing)
