"""Evidence in, verdict out."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from services.sandbox.jail.cgroups import Charge
from services.sandbox.jail.protocol import KeeperReport
from services.sandbox.jail.verdict import Decision, decide
from services.sandbox.job import Limits, Verdict

LIMITS = Limits(cpu_s=2.0)
EXIT_1 = 1 << 8


def charge(cpu_s: float = 0.1, oom: int = 0, refused: int = 0) -> Charge:
    return Charge(cpu_s, 1 << 20, oom, refused)


def find(
    report: KeeperReport, charged: Charge | None = None, stopped: tuple[Verdict, str] | None = None, stderr: bytes = b""
) -> Decision:
    return decide(report, charged, LIMITS, stopped, stderr)


def test_a_good_end_is_ok() -> None:
    assert find(KeeperReport(), charge()) == Decision(Verdict.OK, "", 0, "")


def test_an_exit_code_and_a_signal_are_the_programs() -> None:
    assert find(KeeperReport(wait_status=3 << 8)) == Decision(Verdict.RUNTIME_ERROR, "exit code 3", 3, "")
    assert find(KeeperReport(wait_status=signal.SIGSEGV)) == Decision(
        Verdict.RUNTIME_ERROR, "ended by SIGSEGV", None, "SIGSEGV"
    )


def test_a_failure_of_the_jail_says_nothing_of_the_program() -> None:
    found = find(KeeperReport(failure="no mount"), charge(refused=1), (Verdict.TIME_LIMIT, ""))
    assert found == Decision(Verdict.INFRASTRUCTURE_ERROR, "no mount")


def test_memory_too_small_for_a_start_is_the_limits() -> None:
    assert find(KeeperReport(failure="died before it could start"), charge(oom=1)).verdict is Verdict.MEMORY_LIMIT


@pytest.mark.parametrize(
    ("report", "charged", "verdict"),
    [
        ({"wait_status": 0}, charge(oom=1), Verdict.MEMORY_LIMIT),
        ({"wait_status": 0}, charge(refused=1), Verdict.PROCESS_LIMIT),
        ({"wait_status": 0}, charge(cpu_s=2.1), Verdict.TIME_LIMIT),
        ({"wait_status": 0, "disk_full": True}, charge(), Verdict.DISK_LIMIT),
        ({"wait_status": signal.SIGXCPU}, charge(), Verdict.TIME_LIMIT),
        ({"wait_status": signal.SIGXFSZ}, charge(), Verdict.DISK_LIMIT),
        ({"stopped": "memory"}, None, Verdict.MEMORY_LIMIT),
        ({"stopped": "processes"}, None, Verdict.PROCESS_LIMIT),
        ({"stopped": "cpu"}, None, Verdict.TIME_LIMIT),
        ({"stopped": "disk"}, None, Verdict.DISK_LIMIT),
        ({"cpu_s": 2.1}, None, Verdict.TIME_LIMIT),
    ],
)
def test_a_limit_that_was_hit_is_the_verdict(report: dict[str, Any], charged: Charge | None, verdict: Verdict) -> None:
    assert find(KeeperReport(**report), charged).verdict is verdict


def test_memory_comes_before_the_limit_that_it_led_to() -> None:
    stopped = (Verdict.TIME_LIMIT, "more than 1 s")
    assert find(KeeperReport(stopped="requested"), charge(oom=2), stopped).verdict is Verdict.MEMORY_LIMIT


def test_a_stop_hides_how_the_stopped_program_ended() -> None:
    found = find(
        KeeperReport(wait_status=signal.SIGKILL, stopped="requested"), charge(), (Verdict.OUTPUT_LIMIT, "too much")
    )
    assert found == Decision(Verdict.OUTPUT_LIMIT, "too much", None, "")


def test_a_conversation_that_is_ended_is_ok_unless_the_program_had_ended_by_itself() -> None:
    asked = (Verdict.OK, "ended on request")
    assert find(KeeperReport(wait_status=signal.SIGKILL, stopped="requested"), charge(), asked).verdict is Verdict.OK
    assert find(KeeperReport(wait_status=EXIT_1), charge(), asked) == Decision(
        Verdict.RUNTIME_ERROR, "exit code 1", 1, ""
    )


@pytest.mark.parametrize(
    "stderr", [b"MemoryError\n", b"terminate called after throwing an instance of 'std::bad_alloc'"]
)
def test_a_runtime_that_was_refused_memory_says_so(stderr: bytes) -> None:
    assert find(KeeperReport(wait_status=EXIT_1), charge(), stderr=b"...\n" + stderr).verdict is Verdict.MEMORY_LIMIT
    assert find(KeeperReport(), charge(), stderr=stderr).verdict is Verdict.OK  # it got over it


def test_a_program_that_was_refused_disk_and_gave_it_back_says_so() -> None:
    stderr = b"OSError: [Errno 28] No space left on device\n"
    assert find(KeeperReport(wait_status=EXIT_1), charge(), stderr=stderr).verdict is Verdict.DISK_LIMIT


def test_a_refused_process_is_believed_only_where_nothing_counts() -> None:
    stderr = b"BlockingIOError: [Errno 11] Resource temporarily unavailable"
    assert find(KeeperReport(wait_status=EXIT_1), None, stderr=stderr).verdict is Verdict.PROCESS_LIMIT
    assert find(KeeperReport(wait_status=EXIT_1), charge(), stderr=stderr).verdict is Verdict.RUNTIME_ERROR
