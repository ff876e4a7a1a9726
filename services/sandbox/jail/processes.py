"""The process tree of a job: what it used and how to end it, from /proc, for where no cgroup counts."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """The resources that a job's living processes use together."""

    num_threads: int
    cpu_s: float
    memory_bytes: int


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    num_threads: int
    cpu_s: float
    resident_bytes: int


def measure_usage(keeper: int, enough_bytes: int) -> Usage:
    """Adds up the keeper's descendants; orphans are among them, for the keeper inherits them.

    Shared pages are counted once, unless all together are below `enough_bytes` anyway.
    """
    descendants = _descendants(keeper)
    resident = sum(process.resident_bytes for process in descendants)
    memory = resident if resident < enough_bytes else sum(_proportional_bytes(process) for process in descendants)
    return Usage(
        sum(process.num_threads for process in descendants), sum(process.cpu_s for process in descendants), memory
    )


def kill_descendants(keeper: int) -> None:
    """Kills every descendant of the keeper."""
    for process in _descendants(keeper):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


class UidKiller:
    """Ends every process of a uid that nothing else runs under, at one stroke: none can fork its way past it.

    A process that waits to take on the uid and then to kill. It is started before the program: afterwards there may
    be no room for another process.
    """

    def __init__(self, uid: int, gid: int) -> None:
        waiting, self._trigger = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._trigger)
            if os.read(waiting, 1):
                kill_all_of(uid, gid)
            os._exit(0)
        os.close(waiting)

    def kill(self) -> None:
        """Kills the uid's processes, and waits until that is done."""
        os.write(self._trigger, b"!")
        os.close(self._trigger)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def kill_all_of(uid: int, gid: int) -> None:
    """Becomes the uid, which is not root's, and kills all others of it."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def _descendants(root: int) -> list[_Process]:
    processes = {process.pid: process for process in _all()}
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    descendants, waiting = [], list(children.get(root, ()))
    while waiting:
        pid = waiting.pop()
        descendants.append(processes[pid])
        waiting += children.get(pid, ())
    return descendants


def _all() -> Iterable[_Process]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield _read(int(name))


def _read(pid: int) -> _Process:
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()  # the name before may hold blanks and parentheses
    cpu_s = (int(fields[11]) + int(fields[12])) * _TICK_S
    return _Process(pid, int(fields[1]), int(fields[17]), cpu_s, int(fields[21]) * _PAGE_BYTES)


def _proportional_bytes(process: _Process) -> int:
    try:
        with open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) << 10
    except PermissionError:
        return process.resident_bytes
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0
