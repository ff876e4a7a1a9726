"""Control groups, where the host allows them: they count and bound a job's whole process tree exactly.

One group per slot, made once and used for every job in it: the slot's keeper sits inside, so that a job's processes are
born there; moving a process costs milliseconds. A job is charged the difference to what the group held before it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_PREFIX = "perilune-sandbox"
_numbers = itertools.count()
_STARVED_SHARE = 0.9  # of the limit, in memory that cannot be given back
_STARVED_TIMES = 500  # that the limit was met; in 50 ms a starved group meets it some thousand times


@dataclass(frozen=True)
class Charge:
    """The resources that a job has used since its group was armed."""

    cpu_s: float
    peak_memory_bytes: int
    num_oom_kills: int
    num_refused_processes: int


class Cgroup(Protocol):
    """One slot's group."""

    def add(self, pid: int) -> None:
        """Moves a process into the group."""

    def arm(self, memory_bytes: int, num_processes: int) -> None:
        """Sets the limits for the next job, beyond what the group holds already."""

    def charge(self) -> Charge:
        """Reads what the group has used since it was armed."""

    def is_starved(self) -> bool:
        """True if, since the last call, the kernel kept reclaiming memory in a group full of what must stay.

        Such a job gets no further, and the kernel can leave it so for long before it kills: each time it finds a page
        of the program's code to drop, which is read in again at once.
        """

    def remove(self) -> None:
        """Gives the group back. OSError while something still lives in it."""


class CgroupMaker(Protocol):
    """A version of control groups, as this host offers it."""

    name: str

    def make(self) -> Cgroup:
        """Makes a group below ours."""


class CgroupUnavailableError(Exception):
    """This host has no control groups that we may make; the message says why."""


def find_cgroups() -> CgroupMaker:
    """Version 2 if its controllers are here, else version 1. CgroupUnavailableError: neither, with both reasons."""
    reasons = []
    for kind in (_MakerV2, _MakerV1):
        try:
            maker = kind()
            maker.make().remove()
        except KeyError:
            reasons.append(f"{kind.name}: not mounted")
        except (OSError, CgroupUnavailableError) as error:
            reasons.append(f"{kind.name}: {error}")
        else:
            return maker
    raise CgroupUnavailableError("; ".join(reasons))


class _File:
    """A control file, kept open."""

    def __init__(self, path: Path, writable: bool = False) -> None:
        self._descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def read(self) -> str:
        return os.pread(self._descriptor, 4096, 0).decode("ascii")

    def number(self, key: str = "") -> int:
        """The file's number, or that behind `key` in a file of keys and numbers; 0 where the key is not there."""
        text = self.read()
        found = re.search(rf"^{re.escape(key)} ?(\d+)", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def write(self, value: int | str) -> None:
        os.pwrite(self._descriptor, str(value).encode("ascii"), 0)

    def close(self) -> None:
        os.close(self._descriptor)


class _Peak(Protocol):
    """The most memory that a group held since it was armed."""

    def arm(self) -> None: ...

    def bytes(self, held_now: int) -> int: ...

    def close(self) -> None: ...


class _Group:
    """The operations that both versions share, with files of their own names."""

    _limit: _File
    _usage: _File
    _peak: _Peak
    _events: _File  # counts oom_kill
    _met: _File  # counts how often the limit was met
    _met_key: str
    _stat: _File
    _stays: tuple[str, ...]  # in _stat: what cannot be given back
    _pids_max: _File
    _pids_now: _File
    _pids_events: _File
    _cpu: _File
    _cpu_key: str
    _cpu_per_s: float
    _base = (0, 0.0, 0, 0)  # what the group held and had counted when it was armed
    _num_met = 0  # when it was last asked

    def arm(self, memory_bytes: int, num_processes: int) -> None:
        held = self._usage.number()
        self._limit.write(held + memory_bytes)  # the kernel rounds it down to whole pages
        self._peak.arm()
        self._pids_max.write(self._pids_now.number() + num_processes)
        self._base = (held, *self._counts())
        self._num_met = self._met.number(self._met_key)

    def charge(self) -> Charge:
        held, cpu_s, oom_kills, refused = self._base
        cpu_now, oom_now, refused_now = self._counts()
        peak = max(0, self._peak.bytes(self._usage.number()) - held)
        return Charge(cpu_now - cpu_s, peak, oom_now - oom_kills, refused_now - refused)

    def is_starved(self) -> bool:
        before, self._num_met = self._num_met, self._met.number(self._met_key)
        if self._num_met - before < _STARVED_TIMES:
            return False
        return sum(map(self._stat.number, self._stays)) > _STARVED_SHARE * self._limit.number()

    def _counts(self) -> tuple[float, int, int]:
        cpu_s = self._cpu.number(self._cpu_key) / self._cpu_per_s
        return cpu_s, self._events.number("oom_kill"), self._pids_events.number("max")

    def _close(self) -> None:
        memory: set[_File | _Peak] = {self._limit, self._usage, self._peak, self._events, self._met, self._stat}
        for file in (*memory, self._pids_max, self._pids_now, self._pids_events, self._cpu):
            file.close()


class _MakerV1:
    name = "cgroup-v1"
    _CONTROLLERS = ("memory", "pids", "cpuacct", "cpu")

    def __init__(self) -> None:
        groups, mounts = _own_groups(), _mounts("cgroup")
        self._parents = {name: _locate(groups[name], mounts[name]) for name in self._CONTROLLERS}
        for parent in set(self._parents.values()):
            _remove_abandoned(parent)

    def make(self) -> Cgroup:
        name = _new_name()
        return _CgroupV1({controller: parent / name for controller, parent in self._parents.items()})


class _CgroupV1(_Group):
    _cpu_key, _cpu_per_s = "", 1e9
    _met_key, _stays = "", ("rss", "shmem")

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        memory, pids = folders["memory"], folders["pids"]
        self._limit = _File(memory / "memory.limit_in_bytes", writable=True)
        self._usage = _File(memory / "memory.usage_in_bytes")
        self._peak = _PeakV1(memory)
        self._events = _File(memory / "memory.oom_control")
        self._met = _File(memory / "memory.failcnt")
        self._stat = _File(memory / "memory.stat")
        self._pids_max = _File(pids / "pids.max", writable=True)
        self._pids_now = _File(pids / "pids.current")
        self._pids_events = _File(pids / "pids.events")
        self._cpu = _File(folders["cpuacct"] / "cpuacct.usage")

    def add(self, pid: int) -> None:
        for folder in self._folders.values():
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        for folder in self._folders.values():
            with contextlib.suppress(FileNotFoundError):  # cpu and cpuacct may be one
                folder.rmdir()
        self._close()


class _PeakV1:
    def __init__(self, folder: Path) -> None:
        self._file = _File(folder / "memory.max_usage_in_bytes", writable=True)

    def arm(self) -> None:
        self._file.write(0)

    def bytes(self, held_now: int) -> int:
        return self._file.number()

    def close(self) -> None:
        self._file.close()


class _MakerV2:
    name = "cgroup-v2"
    _CONTROLLERS = frozenset(("memory", "pids", "cpu"))

    def __init__(self) -> None:
        own = _locate(_own_groups()[""], _mounts("cgroup2")[""])
        self._parent = own.parent if own.name == _beside() else own
        missing = self._CONTROLLERS - set((self._parent / "cgroup.controllers").read_text().split())
        if missing:
            raise CgroupUnavailableError(f"{self._parent} has no {', '.join(sorted(missing))} controller")
        _remove_abandoned(self._parent)
        self._delegate()

    def make(self) -> Cgroup:
        return _CgroupV2(self._parent / _new_name())

    def _delegate(self) -> None:
        """Hands the controllers down. A group that hands down may hold no process: ours move into one beside."""
        if set((self._parent / "cgroup.subtree_control").read_text().split()) >= self._CONTROLLERS:
            return
        beside = self._parent / _beside()
        beside.mkdir(exist_ok=True)
        for pid in (self._parent / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (beside / "cgroup.procs").write_text(pid)
        (self._parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in self._CONTROLLERS))


class _CgroupV2(_Group):
    _cpu_key, _cpu_per_s = "usage_usec", 1e6
    _met_key, _stays = "max", ("anon", "shmem")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._limit = _File(folder / "memory.max", writable=True)
        self._usage = _File(folder / "memory.current")
        self._peak = _PeakV2(folder)
        self._events = self._met = _File(folder / "memory.events")
        self._stat = _File(folder / "memory.stat")
        self._pids_max = _File(folder / "pids.max", writable=True)
        self._pids_now = _File(folder / "pids.current")
        self._pids_events = _File(folder / "pids.events")
        self._cpu = _File(folder / "cpu.stat")
        with contextlib.suppress(FileNotFoundError):  # a kernel without swap
            (folder / "memory.swap.max").write_text("0")

    def add(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        self._folder.rmdir()
        self._close()


class _PeakV2:
    """Since Linux 6.12 the kernel's own mark can be set back. Before, it stays at the highest of all jobs: one that
    goes beyond is reported exactly, the others as far as they were looked at. Before 5.19 there is no mark.
    """

    def __init__(self, folder: Path) -> None:
        self._resets = True
        self._file: _File | None = None
        with contextlib.suppress(FileNotFoundError):
            try:
                self._file = _File(folder / "memory.peak", writable=True)
            except PermissionError:
                self._file, self._resets = _File(folder / "memory.peak"), False
        self._before = self._seen = 0

    def arm(self) -> None:
        self._seen = 0
        if self._file and self._resets:
            self._file.write("reset")
        elif self._file:
            self._before = self._file.number()

    def bytes(self, held_now: int) -> int:
        self._seen = max(self._seen, held_now)
        mark = self._file.number() if self._file else 0
        return mark if mark > self._before else self._seen

    def close(self) -> None:
        if self._file:
            self._file.close()


def _beside() -> str:
    """The name of the group that our own processes move into."""
    return f"{_PREFIX}-{os.getpid()}-service"


def _new_name() -> str:
    return f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"


def _own_groups() -> dict[str, str]:
    """The path of our own group, by controller; version 2's controller is the empty name."""
    groups = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _mounts(kind: str) -> dict[str, tuple[str, Path]]:
    """Mount points of a kind of cgroup file system: its root within the hierarchy and the folder, by controller."""
    mounts = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, root, folder, *_ = left.split()
        file_system, _, options = right.split()
        if file_system == kind:
            names = options.split(",") if kind == "cgroup" else [""]
            mounts.update(dict.fromkeys(names, (root, Path(folder))))
    return mounts


def _locate(group: str, mount: tuple[str, Path]) -> Path:
    root, folder = mount
    inside = os.path.relpath(group, root)
    return folder if inside.startswith("..") else folder / inside


def _remove_abandoned(parent: Path) -> None:
    """Removes the groups of services that ended without doing so."""
    for folder in parent.glob(f"{_PREFIX}-*"):
        pid = folder.name.removeprefix(f"{_PREFIX}-").split("-")[0]
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):  # still in use, or another's
                folder.rmdir()
