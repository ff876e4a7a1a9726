"""What the tests of the jail share: jobs for its warm interpreter, and what a job may have left behind."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from services.sandbox.jail.slot import base_python
from services.sandbox.job import File, Job

_SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib64", "/bin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")


def interpreter(level: str) -> Path:
    """A Python that programs may reach: without mounts of our own, none in a home that is closed to others."""
    python = base_python()
    closed = any(not parent.stat().st_mode & stat.S_IXOTH for parent in python.parents)
    other = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    return Path(other) if closed and other and level != "namespaces" else python


def readable(python: Path) -> tuple[Path, ...]:
    return (python.resolve().parents[1], *(Path(path) for path in _SYSTEM))


def python(
    source: str, level: str = "namespaces", *, warm: bool = True, files: tuple[File, ...] = (), **fields: Any
) -> Job:
    """A job that runs a Python program."""
    main, program = File("main.py", source.encode("utf-8", "surrogateescape")), interpreter(level)
    argv = [str(program), "main.py"]
    return Job(argv, (main, *files), readable=readable(program), warm="python" if warm else "", **fields)


def shell(source: str, **fields: Any) -> Job:
    return Job(
        ["/bin/bash", "main.sh"], [File("main.sh", source.encode())], readable=readable(Path("/usr/bin/env")), **fields
    )


@dataclass(frozen=True)
class Remains:
    """What is there of processes, mounts, control groups, files and descriptors, while a pool is idle."""

    num_processes: int  # a keeper that the kernel ended with its job, for want of memory, has another in its place
    mounts: tuple[int, ...]
    cgroups: frozenset[str]
    files: frozenset[str]
    descriptors: tuple[int, ...]

    @staticmethod
    def now() -> Remains:
        ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
        pids = [process.pid for process in ours]
        # A keeper that runs under our own uid does not let us look into it. And what other threads of this process have
        # open comes and goes.
        open_to_us = [pid for pid in pids if pid != os.getpid() and os.access(f"/proc/{pid}/fd", os.R_OK)]
        return Remains(
            num_processes=len(pids),
            # The process that will be the next program, a session of its own, may stand in a root already.
            mounts=tuple(sorted(_num_mounts_of_jobs(pid) for pid in open_to_us if os.getsid(pid) != pid)),
            cgroups=frozenset(
                path for path, *_ in os.walk("/sys/fs/cgroup") if f"perilune-sandbox-{os.getpid()}-" in path
            ),
            files=frozenset(map(str, filter(_is_a_jobs, [*Path("/tmp").iterdir(), *Path("/dev/shm").iterdir()]))),
            descriptors=tuple(sorted(len(os.listdir(f"/proc/{pid}/fd")) for pid in open_to_us)),
        )


def left_behind(before: Remains, after: Remains) -> bool:
    """Whether something is there after that was not before. A keeper may have closed a descriptor meanwhile."""
    grown = [more > less for less, more in zip(before.descriptors, after.descriptors, strict=False)]
    return replace(after, descriptors=()) != replace(before, descriptors=()) or any(grown)


def num_descriptors() -> int:
    """Those of this process, the service's side of the jail."""
    return len(os.listdir("/proc/self/fd"))


def _num_mounts_of_jobs(pid: int) -> int:
    """Mounts that only a job makes; others on this machine make and remove theirs meanwhile."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return sum(line.split(" - ")[1].startswith(("tmpfs root ", "tmpfs work ")) for line in lines)


def _is_a_jobs(path: Path) -> bool:
    try:
        owner = path.lstat().st_uid
    except FileNotFoundError:
        return False
    return 61000 <= owner < 61100 or "escaped" in path.name or "loot" in path.name
