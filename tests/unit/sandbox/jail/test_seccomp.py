"""The list of system calls, judged by an interpreter of its own for the BPF program."""

from __future__ import annotations

import errno
import struct

import pytest

from services.sandbox.jail.seccomp import build_filter
from services.sandbox.jail.syscalls import NUMBERS

ALLOW, KILL = 0x7FFF0000, 0x80000000
X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003


def refuse(error: int) -> int:
    return 0x00050000 | error


def judge(program: bytes, number: int, *arguments: int, architecture: int = X86_64) -> int:
    """What the kernel would answer to a call: the BPF machine, as far as these programs use it."""
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    at = accumulator = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x06:
            return value
        else:
            tests = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}
            tests[0x45] = bool(accumulator & value)
            at += if_true if tests[operation] else if_false


def call(name: str, *arguments: int) -> int:
    return judge(build_filter("x86_64"), NUMBERS[name][0], *arguments)


@pytest.mark.parametrize("name", ["read", "openat", "execve", "futex", "mmap", "kill", "wait4", "getrandom", "rseq"])
def test_what_programs_need_is_allowed(name: str) -> None:
    assert call(name) == ALLOW


@pytest.mark.parametrize(
    ("name", "number"),
    [("mount", 165), ("ptrace", 101), ("unshare", 272), ("bpf", 321), ("keyctl", 250), ("chroot", 161)],
)
def test_what_is_not_on_the_list_is_refused(name: str, number: int) -> None:
    assert name not in NUMBERS
    assert judge(build_filter("x86_64"), number) == refuse(errno.EPERM)


def test_a_process_may_be_made_but_no_namespace() -> None:
    assert call("clone", 17) == ALLOW  # SIGCHLD: a fork
    assert call("clone", 0x003D0F00) == ALLOW  # a thread, as the C library makes it
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert call("clone", flag | 17) == refuse(errno.EPERM)
    assert call("clone3") == refuse(errno.ENOSYS)  # its flags lie in memory, where no filter sees them


def test_sockets_are_local() -> None:
    assert call("socket", 1) == ALLOW
    for family in (2, 10, 16, 17, 40):
        assert call("socket", family) == refuse(errno.EAFNOSUPPORT)


def test_the_keeper_is_nobodys_to_bind_or_to_slow() -> None:
    assert call("prlimit64", 0) == ALLOW
    assert call("prlimit64", 1) == refuse(errno.EPERM)
    assert call("setpriority", 0, 0) == ALLOW
    assert call("setpriority", 0, 1) == refuse(errno.EPERM)
    assert call("setpriority", 2, 0) == refuse(errno.EPERM)


def test_syncing_is_said_to_be_done() -> None:
    assert call("sync") == refuse(0)


def test_other_ways_into_the_kernel_lead_nowhere() -> None:
    program = build_filter("x86_64")
    assert judge(program, 39, architecture=I386) == KILL
    assert judge(program, 39, architecture=AARCH64) == KILL
    assert judge(program, 0x40000000 + 39) == refuse(errno.ENOSYS)  # x32
    assert judge(program, 451) == refuse(errno.ENOSYS)  # younger than the list


def test_a_call_can_be_taken_from_the_list() -> None:
    number = NUMBERS["memfd_create"][0]
    assert judge(build_filter("x86_64"), number) == ALLOW
    assert judge(build_filter("x86_64", without=["memfd_create"]), number) == refuse(errno.EPERM)
    assert judge(build_filter("x86_64", without=["socket"]), NUMBERS["socket"][0], 1) == refuse(errno.EPERM)


def test_another_machine_has_its_own_numbers() -> None:
    program = build_filter("aarch64")
    assert judge(program, 63, architecture=AARCH64) == ALLOW  # read
    assert judge(program, 40, architecture=AARCH64) == refuse(errno.EPERM)  # mount


def test_an_unknown_machine_is_an_error() -> None:
    with pytest.raises(KeyError):
        build_filter("vax")
