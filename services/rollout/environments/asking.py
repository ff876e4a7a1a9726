"""Asking an environment, which may be away, hang, or fail in its own way: then its sample fails, in words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from perilune.errors import InvalidInputError, PeriluneError
from perilune.recipe import EnvironmentBase
from perilune.runtime.bus import in_words
from services.rollout.config import RolloutSettings
from services.rollout.environments import make_environment
from services.rollout.rollout import Rollout

logger = logging.getLogger(__name__)

RETRIES_S = (2.0, 4.0, 8.0, 16.0)  # before an environment that is away is asked once more
PATIENCE_S = 300.0  # for one answer


async def ask(
    rollout: Rollout, question: Callable[[], Awaitable[None]], table: EnvironmentBase, settings: RolloutSettings
) -> None:
    """Asks the rollout's environment. If it is away a new one repeats the turns, and is asked.

    InvalidInputError if it fails at what it is asked, does not answer, or is away each time.
    """
    name = f"the environment {table.type!r}"
    for delay_s in (*RETRIES_S, None):
        try:
            async with asyncio.timeout(PATIENCE_S) as patience:
                return await question()
        except InvalidInputError as error:
            raise InvalidInputError(f"{name}: {error}") from error
        except (PeriluneError, TimeoutError) as error:
            if patience.expired():
                raise InvalidInputError(f"{name}: no answer in {PATIENCE_S:g} s") from error
            if delay_s is None:
                raise InvalidInputError(f"{name}: {error or 'no answer'}") from error
            logger.warning("%s: %s; asking again", name, error or "no answer")
        except (Exception, SystemExit) as error:  # an environment is a program of its own
            raise InvalidInputError(f"{name} failed: {in_words(error)}") from error
        await asyncio.sleep(delay_s)
        await rollout.close()
        rollout.meet(make_environment(table, settings), table.max_turns)
    raise AssertionError("the last try returns or raises")
