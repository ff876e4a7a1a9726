"""Child processes: their command lines, threads and logs."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOG_TAIL_LINES = 15
# glibc gives large freed blocks back to the kernel at once, and torch's next step asks for them again, page by page.
# Kept, they make a small model's training step a fifth faster.
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "67108864",
}


def ending_with_parent(argv: Sequence[str]) -> list[str]:
    """The command such that the kernel ends it with its parent, where it can (Linux).

    A process asks for that itself, before it becomes the command: Python code between fork and exec (preexec_fn)
    crashes now and then where the one who forks has gRPC's threads.
    """
    if sys.platform != "linux":
        return list(argv)
    pr_set_pdeathsig = 1
    ask = f"import ctypes, os, sys; ctypes.CDLL(None).prctl({pr_set_pdeathsig}, {int(signal.SIGTERM)})"
    return [sys.executable, "-I", "-S", "-c", f"{ask}; os.execv(sys.argv[1], sys.argv[1:])", *argv]


def threads_of(service: str, num_rollouts: int, cores: int) -> int:
    """Compute threads for one process. Rollout and training take turns, so each may have the whole machine."""
    if service == "trainer":
        return cores
    return max(1, cores // num_rollouts) if service == "rollout" else 1


@dataclass(eq=False)
class Child:
    """A process that is to live as long as the cluster."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: Path
    ready_file: Path | None = None
    process: asyncio.subprocess.Process | None = None
    watches_parent: bool = True  # as the services do; NATS and torchrun cannot
    deaths: list[float] = field(default_factory=list)
    worked_at: float | None = None  # when a life that finished some work ended, by the clock of `deaths`
    started_ns: int = 0  # when this life began, by the clock of files
    log_start: int = 0  # where in the log this life began
    num_lives: int = 0
    may_start: asyncio.Event = field(default_factory=asyncio.Event)  # clear while it is kept away on purpose

    def __post_init__(self) -> None:
        self.may_start.set()

    @property
    def service(self) -> str:
        """The kind of service: the name without its number."""
        return self.name.partition("-")[0]


def complaint(log: Path, start: int = 0) -> str:
    """Returns what a service said was wrong with its settings: the last thing that it said, or the end of its log."""
    _, found, said = log.read_bytes()[start:].decode(errors="replace").rpartition(" perilune.runtime.service: ")
    return said.strip() if found else f"\n{log_tail(log, start)}"


def failed_to_write(log: Path, start: int = 0) -> bool:
    """Tests whether a NATS server says that its disk was full: until it is started again it writes no such stream."""
    with log.open("rb") as file:
        file.seek(start)
        said = file.read()
    return b"no space left on device" in said or b"JetStream out of resources" in said


def log_tail(log: Path, start: int = 0) -> str:
    """The last lines of a log from byte `start` on, indented."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:]) or "  (it is empty)"
