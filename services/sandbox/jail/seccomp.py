"""The system calls that a program may make: an allow-list, as a classic BPF program that needs no library.

What is not on the list fails with EPERM, as it would for lack of rights; what is younger than the list, and what
programs only try to see whether it is there, fails with ENOSYS, so that they take their older way.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable

from services.sandbox.jail.syscalls import LAST_KNOWN, NUMBERS

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the table, AUDIT_ARCH

# Offsets in struct seccomp_data; arguments are looked at by their lower half (little-endian), as the kernel does for
# the ints that they are.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT = 0x15, 0x25, 0x35, 0x45
_RETURN = 0x06

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERRNO = 0x00050000

_NEW_NAMESPACES = 0x7E020000
_AF_UNIX = 1
_PERSONALITIES = (0, 0xFFFFFFFF, 0x40000)  # Linux, a question, and Linux without address randomisation
_PRCTL_OPTIONS = (
    *(1, 2, 3, 4),  # parent-death signal, dumpable
    *(7, 21, 23, 25, 27),  # questions about capabilities, seccomp, the time stamp counter, secure bits
    *(15, 16, 29, 30),  # names, timer slack
    *(36, 37, 38, 39),  # subreaper, no new privileges
    *(41, 42, 0x53564D41),  # transparent huge pages, names of memory
)
_NOTHING_TO_DO = ("sync", "syncfs")  # answered as done: they would make the host write out its disks
_ABSENT = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")
# Their first argument is a process. The first of the namespace is the keeper, which has the program's own uid in a user
# namespace, and its limits and priority would be those of later jobs.
_NOT_OF_THE_KEEPER = ("prlimit64", "sched_setaffinity", "sched_setparam", "sched_setscheduler")
_EXAMINED = ("clone", "socket", "personality", "prctl", "setpriority", *_NOT_OF_THE_KEEPER)


def build_filter(machine: str = os.uname().machine, without: Iterable[str] = ()) -> bytes:
    """The BPF program for a machine, as `struct sock_filter`s.

    `without` takes calls from the list. KeyError: a machine that the table does not know.
    """
    column, architecture = _ARCHITECTURES[machine]
    numbers = {name: row[column] for name, row in NUMBERS.items()}
    forbidden = {*without, *_NOTHING_TO_DO, *_ABSENT, *_EXAMINED}
    allowed = sorted(number for name, number in numbers.items() if number is not None and name not in forbidden)
    code = _load(_ARCHITECTURE) + _unless(_JUMP_EQUAL, architecture, _return(_KILL)) + _load(_NUMBER)
    for first, last in _ranges(allowed):
        code += _when(_JUMP_GREATER_EQUAL, first, _unless(_JUMP_GREATER, last, _return(_ALLOW)))
    for name, block in _special_blocks().items():
        number = numbers[name]
        if number is not None and name not in without:
            code += _when(_JUMP_EQUAL, number, block)
    code += _when(_JUMP_GREATER, LAST_KNOWN, _refuse(errno.ENOSYS))
    return code + _refuse(errno.EPERM)


def _special_blocks() -> dict[str, bytes]:
    blocks = {name: _refuse(0) for name in _NOTHING_TO_DO} | {name: _refuse(errno.ENOSYS) for name in _ABSENT}
    argument = _load(_FIRST_ARGUMENT)
    blocks["clone"] = argument + _when(_JUMP_ANY_BIT, _NEW_NAMESPACES, _refuse(errno.EPERM)) + _return(_ALLOW)
    blocks["socket"] = argument + _only((_AF_UNIX,)) + _refuse(errno.EAFNOSUPPORT)
    blocks["personality"] = argument + _only(_PERSONALITIES) + _refuse(errno.EPERM)
    keeper = _when(_JUMP_EQUAL, 1, _refuse(errno.EPERM))
    blocks |= {name: argument + keeper + _return(_ALLOW) for name in _NOT_OF_THE_KEEPER}
    one_process = _unless(_JUMP_EQUAL, 0, _refuse(errno.EPERM))  # not a group's or a user's
    blocks["setpriority"] = argument + one_process + _load(_FIRST_ARGUMENT + 8) + keeper + _return(_ALLOW)
    blocks["prctl"] = argument + _only(_PRCTL_OPTIONS) + _refuse(errno.EPERM)
    return blocks


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, 0, 0, offset)


def _return(action: int) -> bytes:
    return _instruction(_RETURN, 0, 0, action)


def _refuse(error: int) -> bytes:
    return _return(_ERRNO | error)


def _when(jump: int, value: int, block: bytes) -> bytes:
    return _instruction(jump, 0, len(block) // 8, value) + block


def _unless(jump: int, value: int, block: bytes) -> bytes:
    return _instruction(jump, len(block) // 8, 0, value) + block


def _only(values: Iterable[int]) -> bytes:
    return b"".join(_when(_JUMP_EQUAL, value, _return(_ALLOW)) for value in values)
