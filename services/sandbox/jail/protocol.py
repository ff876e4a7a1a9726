"""The messages between the service and a slot's keeper: the request for one job, and the report on it.

A request travels in a sealed memory file, so that only the process that runs it ever holds its content.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NEXT = b"next"  # sent to a keeper when its last job has been charged: now it may prepare for another
_LENGTH = struct.Struct("=Q")


@dataclass(frozen=True)
class SlotConfig:
    """A slot's isolation, given to its keeper once, as JSON in its arguments."""

    level: str
    uid: int
    gid: int
    scratch: str  # where work folders lie at levels without mounts
    has_cgroup: bool
    runsc: str = ""  # the program, where gVisor is the level

    @property
    def has_mounts(self) -> bool:
        """True if jobs have a mount namespace of their own."""
        return self.level in ("gvisor", "namespaces", "user-namespaces")

    @property
    def ends_by_uid(self) -> bool:
        """True if the job's processes are those of the uid: where no process namespace separates them."""
        return not self.has_mounts and self.uid != os.getuid()


@dataclass(frozen=True)
class Root:
    """The folders of the host that make up a job's file system. `image` is a whole root's, in place of `readable`."""

    readable: Sequence[str] = ()
    mounts: Mapping[str, str] = field(default_factory=dict)  # by their places inside
    image: str = ""


@dataclass(frozen=True)
class Terms:
    """The keeper's part of a request: the job's root and limits, and no content."""

    cpu_s: float
    memory_bytes: int
    num_processes: int
    file_bytes: int
    num_files: int
    disk_bytes: int
    returns_files: bool
    root: Root = Root()

    def has_root_of(self, other: Terms) -> bool:
        """True if a root made for the other job could be this one's."""
        return (self.root, self.disk_bytes, self.num_files) == (other.root, other.disk_bytes, other.num_files)


@dataclass(frozen=True)
class JobRequest:
    """One job. `files` are (path, size, executable) whose contents follow in the memory file, one after the other."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    warm: bool
    files: Sequence[tuple[str, int, bool]] = ()
    return_files: Sequence[str] = ()


@dataclass(frozen=True)
class KeeperReport:
    """The keeper's observations. `failure` is the jail's own, and then nothing else is set.

    `stopped` is the limit that the keeper itself enforced ("cpu", "memory", "processes", "disk"), or "requested".
    """

    failure: str = ""
    wait_status: int = 0
    stopped: str = ""
    disk_full: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0
    own_cpu_s: float = 0.0  # the keeper's, for this job
    peak_memory_bytes: int = 0
    files: Sequence[tuple[str, int, bool]] = ()  # path, size, executable; their contents follow


def encode_terms(terms: Terms) -> bytes:
    """Encodes terms as JSON."""
    return json.dumps({**vars(terms), "root": vars(terms.root)}).encode()


def decode_terms(data: bytes) -> Terms:
    """Decodes what `encode_terms` made."""
    values = json.loads(data)
    return Terms(**{**values, "root": Root(**values["root"])})


def write_request(request: JobRequest, contents: Sequence[bytes]) -> int:
    """Returns a descriptor of a sealed memory file with the request and its files' contents."""
    head = json.dumps(vars(request)).encode("utf-8", "surrogateescape")
    descriptor = memory_file("request", [_LENGTH.pack(len(head)), head, *contents])
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def read_request(descriptor: int) -> JobRequest:
    """Reads the request; the descriptor then stands at the first file's content."""
    head = read_exactly(descriptor, _LENGTH.unpack(read_exactly(descriptor, _LENGTH.size))[0])
    return JobRequest(**json.loads(head))


def encode_report(report: KeeperReport) -> bytes:
    """Encodes a report; the contents of its files follow."""
    head = json.dumps(vars(report)).encode("ascii")
    return _LENGTH.pack(len(head)) + head


def decode_report(data: bytes) -> tuple[KeeperReport, bytes]:
    """A report and the contents of its files. ValueError: it is incomplete."""
    if len(data) < _LENGTH.size:
        raise ValueError("the report is missing")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if len(data) < end:
        raise ValueError("the report is incomplete")
    return KeeperReport(**json.loads(data[_LENGTH.size : end])), data[end:]


def memory_file(name: str, parts: Sequence[bytes]) -> int:
    """Returns a descriptor of a sealed memory file with the parts; no holder of it can change it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def read_exactly(descriptor: int, size: int) -> bytes:
    """Reads `size` bytes. EOFError: the other side ended early."""
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EOFError("the other side ended early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
