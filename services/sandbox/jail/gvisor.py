"""A kernel of the job's own: gVisor (`runsc`) stands between the program and the host's kernel.

The slot is that of the level `namespaces`: its keeper, its control group, its root and its bounded work folder. But the
program's process starts `runsc`, which shows that root to a program under a kernel in user space (platform systrap).
What the program calls, that kernel answers; a hole in the host's kernel is out of the program's reach, unless it finds
one in gVisor first. Every job starts such a kernel, so there is no warm interpreter here.

The kernel needs processor time and memory of its own before the program does anything. They are measured when the
service starts, and not charged to the program.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from services.sandbox.jail import files, refusals, system
from services.sandbox.jail.cgroups import Cgroup, CgroupMaker, Charge
from services.sandbox.jail.mounts import NEW_ROOT, WORK, WRITABLE
from services.sandbox.jail.program import MAX_OPEN_FILES, STACK_BYTES
from services.sandbox.jail.protocol import JobRequest, KeeperReport, SlotConfig, Terms

_STATE = "/run"  # runsc's own files, in the job's mount namespace alone
_FLAGS = (
    *(f"--root={_STATE}/state", f"--debug-log={_STATE}/%COMMAND%.log", "--platform=systrap", "--network=none"),
    f"--pod-init-config={_STATE}/watch.json",
    *("--ignore-cgroups", "--overlay2=none", "--host-uds=none", "--host-fifo=none"),
)
_ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
_ENDED = re.compile(rb"Exiting with status: (\d+)")
_FAILED = re.compile(rb"FATAL ERROR: (.*)")
_REFUSED = b"the program was refused a process\n"  # in the log, by us
# About the program, and not the host: as a shell has it, 127 if there is none and 126 if it is no executable.
_NOT_STARTED = (b"creating process: ", b"error finding executable ")
_NOT_FOUND = b"no such file or directory"
_OWN_TASKS = 128 + 4 * (os.cpu_count() or 1)  # threads of runsc, on the host
_TASKS_PER_PROCESS = 4  # on the host, for each process of the program


def prepare(request: JobRequest, terms: Terms, source: int, config: SlotConfig, log: int) -> None:
    """Lays the job's files into the root that was built, and runsc's configuration. OSError: they do not fit."""
    if any(size > terms.file_bytes for _, size, _ in request.files):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    os.umask(0o022)
    os.setegid(config.gid)
    os.seteuid(config.uid)
    files.lay(request.files, source, NEW_ROOT + WORK)
    os.seteuid(0)
    os.setegid(0)
    system.mount("state", _STATE, "tmpfs", system.MS_NOSUID | system.MS_NODEV, "mode=0700,size=16m")
    with open(f"{_STATE}/watch.json", "w", encoding="utf-8") as file:
        json.dump(refusals.SESSION, file)
    # Of its logs, only that of the command itself tells us something; the other two grow at the program's will.
    for command, target in {"run": f"/proc/self/fd/{log}", "boot": "/dev/null", "gofer": "/dev/null"}.items():
        os.symlink(target, f"{_STATE}/{command}.log")


def execute(request: JobRequest, terms: Terms, config: SlotConfig, variables: Mapping[str, str], log: int) -> NoReturn:
    """Runs runsc and waits; ends when the program has ended, or was refused a process.

    A SIGINT is passed on to the program.
    """
    with open(f"{_STATE}/config.json", "w", encoding="utf-8") as file:
        json.dump(container(request, terms, config, variables), file)
    runsc = [config.runsc, *_FLAGS]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    silent = [(os.POSIX_SPAWN_DUP2, null, stream) for stream in range(3)]

    def interrupt(*_: object) -> None:
        os.posix_spawn(config.runsc, [*runsc, "kill", "job", "INT"], _ENVIRONMENT, file_actions=silent)

    signal.signal(signal.SIGINT, interrupt)
    os.set_inheritable(log, True)
    os.chdir(_STATE)
    with refusals.listen() as watch:
        pid = os.posix_spawn(config.runsc, [*runsc, "run", f"--bundle={_STATE}", "job"], _ENVIRONMENT)
        if refusals.wait(watch):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)  # now nothing else writes the log
            os.pwrite(log, _REFUSED, os.fstat(log).st_size)
    os._exit(0)  # how the program ended stands in the log; what still runs is ended by the keeper


def container(request: JobRequest, terms: Terms, config: SlotConfig, variables: Mapping[str, str]) -> dict[str, Any]:
    """The job as an OCI runtime's configuration."""
    limits = {
        "RLIMIT_CPU": math.ceil(terms.cpu_s) + 1,  # the tree's time is judged more finely, by the control group
        "RLIMIT_NPROC": terms.num_processes,
        "RLIMIT_FSIZE": terms.file_bytes,
        "RLIMIT_NOFILE": MAX_OPEN_FILES,
        "RLIMIT_STACK": STACK_BYTES,
        "RLIMIT_CORE": 0,
    }
    writable = [
        {"destination": path, "type": "bind", "source": NEW_ROOT + path, "options": ["rw"]}
        for path in WRITABLE.values()
    ]
    return {
        "ociVersion": "1.0.0",
        "root": {"path": NEW_ROOT, "readonly": not terms.root.image},
        "hostname": "sandbox",
        "process": {
            "args": list(request.argv),
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": WORK,
            "user": {"uid": config.uid, "gid": config.gid},
            "capabilities": {},
            "noNewPrivileges": True,
            "rlimits": [{"type": name, "soft": limit, "hard": limit} for name, limit in limits.items()],
        },
        "mounts": [{"destination": "/proc", "type": "proc"}, *writable],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
    }


def read_log(report: KeeperReport, log: int) -> KeeperReport:
    """The report, with what runsc said of the program's end; its exit status is 139 for an exit and a signal alike."""
    size = os.fstat(log).st_size
    said = os.pread(log, size, 0)
    # runsc is our only child, and its processor time holds its own; the control group counts.
    report = replace(report, cpu_s=0.0)
    if said.endswith(_REFUSED):
        return replace(report, stopped=report.stopped or "processes")
    ended, failed = _ENDED.search(said), _FAILED.search(said)
    if ended:
        return replace(report, wait_status=int(ended[1]))
    if report.failure or report.stopped:
        return report
    if not failed:
        return replace(report, failure="runsc ended without a word")
    if any(mark in failed[1] for mark in _NOT_STARTED):
        return replace(report, wait_status=(127 if _NOT_FOUND in failed[1] else 126) << 8)
    return replace(report, failure=f"runsc: {failed[1].decode('utf-8', 'replace')}")


@dataclass
class Overhead:
    """The resources of a job whose program does nothing."""

    cpu_s: float = 0.0
    memory_bytes: int = 0


class FairMaker:
    """Makes control groups that charge a job without gVisor's own share."""

    def __init__(self, maker: CgroupMaker) -> None:
        self._maker = maker
        self.name = maker.name
        self.overhead = Overhead()  # to be set once it is known; the groups made before follow

    def make(self) -> Cgroup:
        """Makes a group whose charge leaves gVisor's own share out."""
        return _FairCgroup(self._maker.make(), self)


class _FairCgroup:
    def __init__(self, cgroup: Cgroup, maker: FairMaker) -> None:
        self._cgroup = cgroup
        self._maker = maker
        self.add = cgroup.add
        self.remove = cgroup.remove
        self.is_starved = cgroup.is_starved

    def arm(self, memory_bytes: int, num_processes: int) -> None:
        """The number of processes is bounded within; here, only what stands for them on the host."""
        num_tasks = num_processes * _TASKS_PER_PROCESS + _OWN_TASKS
        self._cgroup.arm(memory_bytes + self._maker.overhead.memory_bytes, num_tasks)

    def charge(self) -> Charge:
        gross, own = self._cgroup.charge(), self._maker.overhead
        return replace(
            gross,
            cpu_s=max(0.0, gross.cpu_s - own.cpu_s),
            peak_memory_bytes=max(0, gross.peak_memory_bytes - own.memory_bytes),
        )
