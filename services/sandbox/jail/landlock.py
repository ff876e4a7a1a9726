"""Landlock: a process gives up, for itself and all it starts, every path but those named; no rights are needed.

The level for places without namespaces, such as an ordinary container. Handled are the rights of the kernel's own
version; what a younger version adds (TCP, abstract sockets, signals) is taken away where it is known.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

from services.sandbox.jail import system

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_MAKE_CHARACTER_DEVICE, _MAKE_BLOCK_DEVICE = 1 << 6, 1 << 11
_FIRST_VERSION = (1 << 13) - 1
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE


def confine(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Leaves this process the readable paths, and the writable ones in all but making devices.

    OSError: the kernel has no Landlock. A path that is not there is passed over.
    """
    version = system.landlock_version()
    handled = _FIRST_VERSION
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        handled |= right if version >= since else 0
    network = 0b11 if version >= 4 else 0  # bind and connect
    scoped = 0b11 if version >= 6 else 0  # abstract sockets and signals
    ruleset = system.landlock_create(struct.pack("=QQQ", handled, network, scoped)[: _ruleset_size(version)])
    try:
        for path in readable:
            _allow(ruleset, path, _READ & handled)
        for path in writable:
            _allow(ruleset, path, handled & ~(_MAKE_CHARACTER_DEVICE | _MAKE_BLOCK_DEVICE))
        system.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)


def _ruleset_size(version: int) -> int:
    return 24 if version >= 6 else 16 if version >= 4 else 8


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        system.landlock_allow_beneath(ruleset, descriptor, access if is_folder else access & _OF_FILES)
    finally:
        os.close(descriptor)
