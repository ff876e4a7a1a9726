"""A forked child's way to become the program: bounded, stripped of every right, and then either a fresh
executable or the warm interpreter that it already is (`interpreter`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes an enum of each number, which costs more than the call
import math
import os
import resource
from collections.abc import Sequence
from typing import NoReturn

from services.sandbox.jail import files, landlock, system
from services.sandbox.jail.mounts import WORK
from services.sandbox.jail.protocol import JobRequest, SlotConfig, Terms
from services.sandbox.jail.seccomp import build_filter

GVISOR, NAMESPACES, USER_NAMESPACES = "gvisor", "namespaces", "user-namespaces"
LANDLOCK, RLIMITS = "landlock", "rlimits"
WITH_MOUNTS = (GVISOR, NAMESPACES, USER_NAMESPACES)

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "USER": "sandbox",
    "LOGNAME": "sandbox",
}
MAX_OPEN_FILES = 512
STACK_BYTES = 64 << 20


def prepare(request: JobRequest, terms: Terms, source: int, config: SlotConfig, work: str) -> None:
    """Takes everything from this process that a program must not have. OSError: the host does not let us.

    What is left is an unprivileged process in the work folder, with its files laid, under its limits.
    """
    _bound(terms, config)
    if config.level != USER_NAMESPACES and config.uid != os.getuid():
        os.setgroups([])
        os.setresgid(config.gid, config.gid, config.gid)
        os.setresuid(config.uid, config.uid, config.uid)
    os.umask(0o022)
    os.chdir(work)
    files.lay(request.files, source, work)
    os.close(source)
    system.set_no_new_privileges()
    if config.has_mounts:
        system.drop_capabilities()
    if config.level == LANDLOCK:
        devices = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
        shown = (*terms.root.readable, *terms.root.mounts.values(), *devices)
        landlock.confine(shown, (work, "/dev/null"))
    if config.level != RLIMITS:
        system.install_seccomp(_FILTERS[config.level][config.has_cgroup])
    system.set_dumpable(True)


# A memory file is memory that only a cgroup counts. Without a network namespace of its own, a socket could reach what
# listens on the host by path or abstract name; socketpair stays.
_FILTERS = {
    level: {
        has_cgroup: build_filter(
            without=[
                *(() if has_cgroup else ("memfd_create",)),
                *(() if level in WITH_MOUNTS else ("socket",)),
            ]
        )
        for has_cgroup in (False, True)
    }
    for level in (NAMESPACES, USER_NAMESPACES, LANDLOCK)
}


def environment(request: JobRequest, work: str) -> dict[str, str]:
    """The program's environment: defaults, then the request's own variables."""
    folders = {"HOME": work, "PWD": work, "TMPDIR": "/tmp" if work == WORK else work}
    return _ENVIRONMENT | folders | dict(request.environment)


def execute(argv: Sequence[str], variables: dict[str, str]) -> NoReturn:
    """Becomes the executable; 127 and 126 with a line on stderr where there is none, as a shell says it."""
    for signum in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT):
        _signal.signal(signum, _signal.SIG_DFL)
    try:
        os.execvpe(argv[0], list(argv), variables)
    except (OSError, ValueError) as error:
        os.write(2, f"{argv[0]}: {error}\n".encode("utf-8", "replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _bound(terms: Terms, config: SlotConfig) -> None:
    cpu_s = math.ceil(terms.cpu_s) + 1  # the tree's time is judged more finely; this stops a process that escaped it
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),
        resource.RLIMIT_FSIZE: (terms.file_bytes, terms.file_bytes),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (MAX_OPEN_FILES, MAX_OPEN_FILES),
        resource.RLIMIT_MEMLOCK: (64 << 10, 64 << 10),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_RTPRIO: (0, 0),
        resource.RLIMIT_NICE: (0, 0),
        resource.RLIMIT_SIGPENDING: (1024, 1024),
    }
    if config.level != RLIMITS:
        # A cgroup that counts comes first. Without one, the process beyond the limit starts, and is seen and stopped;
        # a user namespace's count holds the keeper and its parent too.
        spare = 16 if config.has_cgroup else 1
        num_processes = terms.num_processes + spare + (2 if config.level == USER_NAMESPACES else 0)
        limits[resource.RLIMIT_NPROC] = (num_processes, num_processes)
    stack = STACK_BYTES if config.has_cgroup else 8 << 20
    limits[resource.RLIMIT_STACK] = (stack, stack)
    if not config.has_cgroup:
        data = terms.memory_bytes * 2 + (1 << 30)
        limits[resource.RLIMIT_DATA] = (data, data)
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(
            kind, limit if hard == resource.RLIM_INFINITY else (min(limit[0], hard), min(limit[1], hard))
        )
