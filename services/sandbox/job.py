"""The nouns of the sandbox: what is to be run, within which limits, and what became of it.

A job is one program start in a fresh file system. Compiling is a job that keeps a folder; running what was compiled is
another that reads it. Who judges, converses or serves speaks in these values and never of namespaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from perilune.api.sandbox.v1 import sandbox_pb2 as api


class Verdict(IntEnum):
    """The verdict on a program; the numbers are those of the API."""

    OK = api.VERDICT_OK
    WRONG_ANSWER = api.VERDICT_WRONG_ANSWER
    RUNTIME_ERROR = api.VERDICT_RUNTIME_ERROR
    COMPILE_ERROR = api.VERDICT_COMPILE_ERROR
    TIME_LIMIT = api.VERDICT_TIME_LIMIT
    MEMORY_LIMIT = api.VERDICT_MEMORY_LIMIT
    OUTPUT_LIMIT = api.VERDICT_OUTPUT_LIMIT
    PROCESS_LIMIT = api.VERDICT_PROCESS_LIMIT
    DISK_LIMIT = api.VERDICT_DISK_LIMIT
    INFRASTRUCTURE_ERROR = api.VERDICT_INFRASTRUCTURE_ERROR
    CANCELLED = api.VERDICT_CANCELLED

    @property
    def is_the_sandboxs_fault(self) -> bool:
        """True if this says nothing about the program, and a retry may help."""
        return self in (Verdict.INFRASTRUCTURE_ERROR, Verdict.CANCELLED)


@dataclass(frozen=True)
class Limits:
    """The limits of one job, for its whole process tree together."""

    cpu_s: float = 10.0
    wall_s: float = 30.0
    memory_bytes: int = 512 << 20
    num_processes: int = 64
    output_bytes: int = 1 << 20  # of stdout and of stderr, each
    file_bytes: int = 64 << 20
    num_files: int = 1024
    disk_bytes: int = 64 << 20


@dataclass(frozen=True)
class File:
    """A file in the work folder; `path` is relative to it."""

    path: str
    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Image:
    """A root file system that was added by name. `digest` tells one content of it from another."""

    name: str
    digest: str
    root: Path
    environment: Mapping[str, str]
    num_bytes: int = 0


@dataclass(frozen=True)
class Job:
    """One program start in a fresh file system.

    The work folder is the current folder, writable, in memory, of fixed size; `files` are laid there first. `mounts`
    are host folders shown read-only at absolute places inside, such as a compiled program; `readable` are host paths
    that the language needs (its interpreter, its libraries), shown where they lie; those that are not there are passed
    over. With an `image`, the folder of a root file system, that is what is shown in their place; what the program
    writes over it goes into the same memory, and the image stays as it is.
    """

    argv: Sequence[str]
    files: Sequence[File] = ()
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    readable: Sequence[Path] = ()
    mounts: Mapping[str, Path] = field(default_factory=dict)
    image: Path | None = None
    return_files: Sequence[str] = ()  # paths or glob patterns in the work folder
    warm: str = ""  # the kind of warm interpreter that may run it, such as "python"; else a fresh exec of argv


@dataclass(frozen=True)
class Output:
    """The output of a stream; `content` is cut at the limit, `num_bytes` is the full length."""

    content: bytes = b""
    num_bytes: int = 0

    @property
    def truncated(self) -> bool:
        """True if the content was cut at the limit."""
        return self.num_bytes > len(self.content)


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a job. CPU time and memory are those of the whole process tree."""

    verdict: Verdict
    reason: str = ""
    exit_code: int | None = None
    signal: str = ""
    stdout: Output = Output()
    stderr: Output = Output()
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_memory_bytes: int = 0
    files: Sequence[File] = ()


@dataclass(frozen=True)
class Isolation:
    """The level in force and the mechanisms that make it up."""

    level: str
    mechanisms: Sequence[str]


class BusyError(Exception):
    """No slot is free and the queue is full; `retry_after_s` is an estimate."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the sandbox is busy; try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class Conversation(Protocol):
    """A running job whose stdin and stdout are a live channel: a judged function, an interpreter's session."""

    async def send(self, data: bytes) -> None:
        """Writes to its stdin. BrokenPipeError once it has ended."""

    async def receive_line(self) -> bytes:
        """The next line of its stdout with its newline; empty once it ended. ValueError beyond the output limit."""

    async def interrupt(self) -> None:
        """Sends SIGINT to the program itself."""

    async def end(self) -> JobOutcome:
        """Kills whatever still runs, and tells what became of it. Once; the slot is free afterwards."""


class Jail(Protocol):
    """A place to run jobs: a pool of slots under one isolation level."""

    @property
    def isolation(self) -> Isolation:
        """The isolation that jobs run under."""

    async def run(self, job: Job) -> JobOutcome:
        """Runs a job to its end. BusyError if it cannot be taken; a failure of the jail itself is its verdict."""

    def open(self, job: Job) -> AbstractAsyncContextManager[Conversation]:
        """Starts a job and keeps its stdin and stdout open. BusyError if it cannot be taken."""
