"""Processes that gVisor's kernel refused: it bounds processes and threads itself, and only the program hears of it.

Its runtime monitoring tells us of every process that was asked for: it connects to a socket of ours and sends a message
for each, of which the call's error is looked at. (gVisor, pkg/sentry/seccheck: sinks/remote/wire and points/syscall.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
from collections.abc import Iterator

from services.sandbox.jail.syscalls import NUMBERS

_SOCKET = "watch"  # in the current folder
_COLUMN = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
_CALLS = [number for name in ("clone", "clone3", "fork", "vfork") if (number := NUMBERS[name][_COLUMN]) is not None]
SESSION = {
    "trace_session": {
        "name": "Default",
        "points": [{"name": f"syscall/sysno/{number}/exit"} for number in _CALLS],
        "sinks": [{"name": "remote", "config": {"endpoint": _SOCKET}}],
    }
}
_HELLO = b"\x08\x01"  # version 1 of the protocol, as a protobuf message
_EXIT, _ERROR = 2, 2  # fields: of a system call's message, and of how it ended
_MAX_BYTES = 1 << 16


@contextlib.contextmanager
def listen() -> Iterator[socket.socket]:
    """The socket that SESSION names; one connection comes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(_SOCKET)
        server.listen(1)
        yield server


def wait(server: socket.socket) -> bool:
    """Waits until the one child of this process ends, or the kernel refuses a process; whether it did."""
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(server, select.POLLIN)
    connection = None
    while not _has_ended():
        for descriptor, _ in poll.poll():
            if descriptor == woken:
                os.read(woken, _MAX_BYTES)
            elif connection is None:
                connection = _shake_hands(server)
                poll.unregister(server)
                poll.register(connection, select.POLLIN)
            else:
                message = connection.recv(_MAX_BYTES)
                if not message:
                    poll.unregister(connection)
                elif is_refusal(message):
                    return True
    return False


def _has_ended() -> bool:
    """True if the child has ended; helpers that pass signals on are children too, and do not count while it lives."""
    try:
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return False
    except ChildProcessError:
        return True


def _shake_hands(server: socket.socket) -> socket.socket:
    connection, _ = server.accept()
    connection.recv(_MAX_BYTES)
    connection.send(_HELLO)
    return connection


def is_refusal(message: bytes) -> bool:
    """True for a message of a call that failed with EAGAIN: its header's first two bytes are the header's length."""
    body = message[int.from_bytes(message[:2], "little") :]
    ending = _field(body, _EXIT)
    return isinstance(ending, bytes) and _field(ending, _ERROR) == errno.EAGAIN


def _field(message: bytes, wanted: int) -> bytes | int | None:
    """A field of a protobuf message by its number: bytes, or a number; None if it is not there."""
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        value: bytes | int
        if key & 7 == 2:
            length, at = _number(message, at)
            value, at = message[at : at + length], at + length
        else:
            value, at = _number(message, at)
        if key >> 3 == wanted:
            return value
    return None


def _number(message: bytes, at: int) -> tuple[int, int]:
    """A variable-length number, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
