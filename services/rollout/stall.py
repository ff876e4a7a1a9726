"""Detection of an engine that is stuck. Progress keeps work in hand; being alive does not."""

from __future__ import annotations

import time
from collections.abc import Callable

from perilune.runtime.vitals import cpu_seconds

STALL_S = 25.0  # without progress, after which the bus hears no more of what is in hand and gives it to another worker
SLOW_STEP_S = 600.0  # the longest single step, while it uses the processor
BUSY_SHARE = 0.5  # of one processor, that tells a slow step from a stuck one


class StallDetector:
    """Asked again and again; says whether nothing was done since long although there is something to do."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu_seconds: Callable[[], float] = cpu_seconds
    ) -> None:
        self._clock, self._cpu_seconds = clock, cpu_seconds
        self._progress = -1
        self._since, self._cpu_then = clock(), cpu_seconds()

    def is_stuck(self, is_busy: bool, progress: int) -> bool:
        """`progress` differs after every piece of work, however small; while `is_busy` is false there is none to do."""
        now = self._clock()
        if progress != self._progress or not is_busy:
            self._progress, self._since, self._cpu_then = progress, now, self._cpu_seconds()
            return False
        silent_s = now - self._since
        if silent_s < STALL_S:
            return False
        return silent_s > SLOW_STEP_S or self._cpu_seconds() - self._cpu_then < BUSY_SHARE * silent_s
