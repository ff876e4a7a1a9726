"""The other end of `processes.py`: a server that forks workers, and a worker that does one task after another.

    python -m services.reward.process_worker CONTROL_FD MEMORY_BYTES MODULE...

The server imports the heavy modules once. It holds no connection, no thread and no secret of the service; every byte
that arrives on its control socket brings the socket of a new worker. Closing a socket ends its other end.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import math
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from typing import Any

LENGTH = struct.Struct("!I")  # before each message
_PR_SET_PDEATHSIG = 1


def serve_forks(control: socket.socket, memory_bytes: int) -> None:
    """Forks a worker for each socket that arrives, until the service is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c is the service's to handle
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        connection = socket.socket(fileno=descriptors[0])
        if os.fork() == 0:
            control.close()
            _die_with_parent()
            _limit(memory_bytes)
            work(connection)
            os._exit(0)
        connection.close()


def work(connection: socket.socket) -> None:
    """Says its pid, then answers (function, arguments, seconds) with (whether it returned, what it returned or
    raised), until no request can come any more."""
    with connection, connection.makefile("rwb") as stream:
        _send(stream, os.getpid())
        while header := stream.read(LENGTH.size):
            function, arguments, timeout_s = pickle.loads(stream.read(*LENGTH.unpack(header)))  # noqa: S301
            _send(stream, _attempt(function, arguments, timeout_s))


def _attempt(function: Any, arguments: tuple[Any, ...], timeout_s: float) -> tuple[bool, Any]:
    # Should the service hang, nothing is left to kill a stuck worker: then the kernel does.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + timeout_s) + 2, hard))
    try:
        return True, function(*arguments)
    except Exception as error:  # noqa: BLE001 it is handed on to the caller
        return False, error


def _send(stream: Any, message: Any) -> None:
    try:
        data = pickle.dumps(message)
    except Exception as error:  # noqa: BLE001 an object of any class can refuse, in its own way
        data = pickle.dumps((False, RuntimeError(f"the result cannot be sent: {error}")))
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    for name in sys.argv[3:]:
        importlib.import_module(name)
    gc.freeze()  # so that collections in a worker leave the shared pages alone
    serve_forks(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
