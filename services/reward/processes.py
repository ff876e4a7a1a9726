"""Worker processes with a time and a memory limit, for what may hang or eat memory: a stuck one is killed.

They are forked from a server process (`worker.py`) that has the heavy imports done. It starts with the first task:
runs with cheap graders never pay for it. Each worker has a socket of its own and shares no lock, so that killing one
harms no other; nothing here blocks the event loop, and the end waits for no worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from perilune.runtime.environment import without_secrets
from services.reward.process_worker import LENGTH

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ATTEMPTS = 3
MAX_TASKS = 1000  # of one worker: sympy's caches grow
SLOW_S = 0.25  # a task that takes longer makes room for the next, and goes on beside it
PRELOAD = ("services.reward.graders", "services.reward.equality.symbolic")


class WorkerDiedError(Exception):
    """The process died under the task, every time it was tried."""


@dataclass
class _Worker:
    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    num_tasks: int = 0

    async def do(self, task: tuple[Any, ...]) -> tuple[bool, Any]:
        """Has a task done. EOFError or ConnectionError if the process dies under it."""
        self.num_tasks += 1
        data = pickle.dumps(task)
        self.writer.write(LENGTH.pack(len(data)) + data)
        return await _receive(self.reader)

    def kill(self) -> None:
        """Ends the process at once, whatever it does."""
        if not self.reader.at_eof():  # else it has gone, and its number may be another's
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.writer.transport.abort()


class Processes:
    """Runs functions in worker processes; use as a context manager.

    At most `num_processes` tasks are under way, and as many again that turned out slow: cheap tasks get through while
    others are stuck.
    """

    def __init__(self, num_processes: int, timeout_s: float, memory_bytes: int) -> None:
        self.timeout_s = timeout_s
        self.num_waiting = 0
        self._memory_bytes = memory_bytes
        self._places = asyncio.Semaphore(num_processes)
        self._slow_places = asyncio.Semaphore(num_processes)
        self._idle: list[_Worker] = []
        self._forks: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        while self._idle:
            self._idle.pop().kill()
        self._end_forks()

    async def run(self, work: Callable[..., T], *arguments: Any, timeout_s: float | None = None) -> T:
        """Runs a module's function in a worker, and returns or raises what it does.

        Raises:
            TimeoutError: it took longer than the limit (the pool's, unless a shorter one is given), and was killed.
            WorkerDiedError: the process died under it, MAX_ATTEMPTS times.
        """
        limit_s = min(self.timeout_s, timeout_s or self.timeout_s)
        self.num_waiting += 1
        try:
            for _ in range(MAX_ATTEMPTS):
                try:
                    returned, value = await self._attempt((work, arguments, limit_s), limit_s)
                except (EOFError, ConnectionError):
                    logger.warning("a grader process died under %r", work)
                    continue
                if not returned:
                    raise value
                return value
        finally:
            self.num_waiting -= 1
        raise WorkerDiedError(f"the grader process died, {MAX_ATTEMPTS} times")

    async def _attempt(self, task: tuple[Any, ...], limit_s: float) -> tuple[bool, Any]:
        async with contextlib.AsyncExitStack() as place:
            await place.enter_async_context(self._places)
            async with self._worker() as worker:
                answer = asyncio.create_task(worker.do(task))
                try:
                    done, _ = await asyncio.wait([answer], timeout=min(SLOW_S, limit_s))
                    if not done and not self._slow_places.locked():
                        await place.aclose()
                        await place.enter_async_context(self._slow_places)
                    return await asyncio.wait_for(answer, 0 if done else limit_s - SLOW_S)
                except TimeoutError as error:
                    raise TimeoutError(f"stopped after {limit_s:g} s") from error
                finally:
                    answer.cancel()

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator[_Worker]:
        """A worker that is idle, or a new one; it lives on only if its task ended."""
        worker = self._idle.pop() if self._idle else await self._fork()
        try:
            yield worker
        except BaseException:
            worker.kill()
            raise
        if worker.num_tasks < MAX_TASKS:
            self._idle.append(worker)
        else:
            worker.kill()

    async def _fork(self) -> _Worker:
        control = self._forks[1] if self._forks and self._forks[0].poll() is None else self._start_forks()
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(control, [b"+"], [theirs.fileno()])
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            return _Worker(await _receive(reader), reader, writer)
        except BaseException:
            writer.transport.abort()  # the worker ends when its peer is gone
            raise

    def _start_forks(self) -> socket.socket:
        self._end_forks()
        ours, theirs = socket.socketpair()
        with theirs:
            command = [
                sys.executable,
                "-m",
                "services.reward.process_worker",
                str(theirs.fileno()),
                str(self._memory_bytes),
            ]
            process = subprocess.Popen(
                [*command, *PRELOAD],
                env=without_secrets(os.environ),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._forks = process, ours
        return ours

    def _end_forks(self) -> None:
        if self._forks:
            process, control = self._forks
            control.close()
            process.kill()
            process.wait()
            self._forks = None


async def _receive(reader: asyncio.StreamReader) -> Any:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return pickle.loads(await reader.readexactly(length))  # noqa: S301 our own worker wrote it
