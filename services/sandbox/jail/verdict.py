"""The verdict on a job, decided from what was observed. Pure: evidence in, verdict out.

A limit that was hit is the verdict, however the program ended after it: what it would have done without the limit is
unknown.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from services.sandbox.jail.cgroups import Charge
from services.sandbox.jail.protocol import KeeperReport
from services.sandbox.job import Limits, Verdict

# How runtimes say that memory was refused to them, in the last lines of stderr.
_REFUSED_MEMORY = (
    b"MemoryError",
    b"std::bad_alloc",
    b"OutOfMemoryError",
    b"heap out of memory",
    b"memory allocation of",
)
_REFUSED_DISK = (b"No space left on device", b"ENOSPC")
# And another process or thread, where nothing counts the refusals.
_REFUSED_PROCESSES = (b"Resource temporarily unavailable", b"can't start new thread", b"unable to create native thread")
_LAST_BYTES = 4096


@dataclass(frozen=True)
class Decision:
    """The verdict and, where it alone does not say it, the reason; how the program itself ended, where it did."""

    verdict: Verdict
    reason: str = ""
    exit_code: int | None = None
    signal: str = ""


def decide(
    report: KeeperReport, charge: Charge | None, limits: Limits, stopped: tuple[Verdict, str] | None, stderr: bytes
) -> Decision:
    """Decides what became of a job.

    `charge` is what the cgroup counted, `stopped` the limit for which the service ended the job, `said` its stderr.
    """
    if report.failure and not (charge and charge.num_oom_kills):  # memory so small that not even a start was possible
        return Decision(Verdict.INFRASTRUCTURE_ERROR, report.failure)
    if stopped and stopped[0] is Verdict.OK and not report.stopped:
        stopped = None  # it had ended by itself
    ending = (None, "") if stopped or report.stopped else _ending(report.wait_status)
    limit = _limit_hit(report, charge, limits, stopped, ending[1])
    if limit:
        return Decision(*limit, *ending)
    if ending == (0, ""):
        return Decision(Verdict.OK, "", *ending)
    if any(text in stderr[-_LAST_BYTES:] for text in _REFUSED_MEMORY):
        return Decision(Verdict.MEMORY_LIMIT, "the program was refused memory", *ending)
    if any(text in stderr[-_LAST_BYTES:] for text in _REFUSED_DISK):  # it may have given back what it had
        return Decision(Verdict.DISK_LIMIT, "the program was refused disk", *ending)
    if charge is None and any(text in stderr[-_LAST_BYTES:] for text in _REFUSED_PROCESSES):
        return Decision(Verdict.PROCESS_LIMIT, "the program was refused processes", *ending)
    return Decision(Verdict.RUNTIME_ERROR, _describe(*ending), *ending)


def _limit_hit(
    report: KeeperReport, charge: Charge | None, limits: Limits, stopped: tuple[Verdict, str] | None, ended_by: str
) -> tuple[Verdict, str] | None:
    memory = (Verdict.MEMORY_LIMIT, f"more than {limits.memory_bytes} bytes of memory")
    processes = (Verdict.PROCESS_LIMIT, f"more than {limits.num_processes} processes and threads")
    disk = (Verdict.DISK_LIMIT, f"more than {limits.disk_bytes} bytes or {limits.num_files} files")
    cpu = (Verdict.TIME_LIMIT, f"more than {limits.cpu_s:g} s of CPU time")
    by_keeper = {"cpu": cpu, "memory": memory, "processes": processes, "disk": disk}
    if charge and charge.num_oom_kills:
        return memory
    if charge and charge.num_refused_processes:
        return processes
    if stopped:
        return stopped
    if report.stopped in by_keeper:
        return by_keeper[report.stopped]
    if ended_by == "SIGXCPU" or (charge.cpu_s if charge else report.cpu_s) > limits.cpu_s:
        return cpu
    if ended_by == "SIGXFSZ":
        return Verdict.DISK_LIMIT, f"a file of more than {limits.file_bytes} bytes"
    return disk if report.disk_full else None


def _ending(wait_status: int) -> tuple[int | None, str]:
    if os.WIFSIGNALED(wait_status):
        return None, _signal_name(os.WTERMSIG(wait_status))
    return os.WEXITSTATUS(wait_status), ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # a real-time signal


def _describe(exit_code: int | None, signal_name: str) -> str:
    return f"ended by {signal_name}" if signal_name else f"exit code {exit_code}"
