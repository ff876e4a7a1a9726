"""Worker processes with a time and a memory limit, for what may hang or eat memory: a stuck one is killed.

They are forked from a server process that holds no connection, no thread and no secret of the service, and has the
heavy imports done. It starts with the first task: runs with cheap graders never pay for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from pebble import ProcessExpired, ProcessPool

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
PRELOAD = ["services.reward.graders", "services.reward.equality.symbolic"]


class WorkerDiedError(Exception):
    """The process died under the task, every time it was tried."""


class Processes:
    """A pool; use as a context manager."""

    def __init__(self, num_processes: int, timeout_s: float, memory_bytes: int) -> None:
        self.timeout_s = timeout_s
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self._pool = ProcessPool(
            max_workers=num_processes,
            max_tasks=1000,  # sympy's caches grow
            initializer=_limit_memory,
            initargs=(memory_bytes,),
            context=context,
        )
        self.num_waiting = 0

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.stop()
        self._pool.join()

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a module's function in a worker, and returns or raises what it does.

        Raises:
            TimeoutError: it took longer than the limit, and was killed.
            WorkerDiedError: the process died under it, MAX_ATTEMPTS times.
        """
        self.num_waiting += 1
        try:
            for _ in range(MAX_ATTEMPTS):
                future = self._pool.schedule(_run, (work, arguments, self.timeout_s), timeout=self.timeout_s)
                try:
                    return await asyncio.wrap_future(future)
                except FutureTimeoutError as error:
                    raise TimeoutError(f"stopped after {self.timeout_s:g} s") from error
                except ProcessExpired as error:
                    logger.warning("a grader process died with exit code %s", error.exitcode)
                    reason = f"the grader process died with exit code {error.exitcode}"
        finally:
            self.num_waiting -= 1
        raise WorkerDiedError(f"{reason}, {MAX_ATTEMPTS} times")


def _limit_memory(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run(work: Callable[..., Any], arguments: tuple[Any, ...], timeout_s: float) -> Any:
    # Should the service die, nobody is left to kill a stuck worker: then the kernel does.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + timeout_s) + 2, hard))
    return work(*arguments)
