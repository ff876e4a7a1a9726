"""The process that will be the next program: forked before there is an order, so that the order finds it ready.

Where the last two jobs saw the same of the host it also stands in a root like theirs already, with a place to write of
its own. It knows of the host's folders and of nothing that a job brought. Left to do when the order comes are the job's
files, its streams, and the loss of all rights.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import errno
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from services.sandbox.jail import gvisor, interpreter, program, system
from services.sandbox.jail.mounts import NEW_ROOT, WORK, build_room, build_root, enter_root, furnish_room
from services.sandbox.jail.protocol import Order, Place, Root, Terms, decode_terms, encode_terms, read_order

_PREPARED, _READY = b"P", b"\0"  # what the process says when that is so; else it says what went wrong
_FULL = b"\1"  # its files are more than the job may have
_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG)
_MAX_DESCRIPTORS = 5  # the order, three streams, and gVisor's log
_MESSAGE_BYTES = 1 << 18


@dataclass(frozen=True)
class Start:
    """How a program's process came to its start. `work` is the work folder's descriptor, -1 where there is none."""

    failure: str = ""
    work: int = -1
    cpu_s: float = 0.0  # of the process until then
    new_cpu_s: float = 0.0  # of that, since the order


class Room:
    """A root that jobs of one shape share: read-only, without any place to write, in a mount namespace of its own that
    nobody lives in. Each job brings its own place to write, in a copy of that namespace."""

    def __init__(self) -> None:
        self._terms: Terms | None = None  # of the jobs that it is for
        self._shown: Sequence[object] = ()  # what lay at its folders when it was made
        self._namespace = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)  # until there is one

    def fits(self, terms: Terms) -> bool:
        return self._terms is not None and self._terms.root == terms.root and self._shown == _lying_at(terms.root)

    def build(self, place: Place, terms: Terms) -> None:
        """Makes it for such jobs, in place of the one there was. It stays as it is if a folder is missing."""
        shown = _lying_at(terms.root)
        waiting, done = os.pipe()
        pid = os.fork()
        if pid == 0:
            _build_room(place, terms, waiting, done)
        os.close(done)
        try:
            if os.read(waiting, 1):
                namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
                os.dup2(namespace, self._namespace, inheritable=False)
                os.close(namespace)
                self._terms, self._shown = terms, shown
        finally:
            os.close(waiting)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def enter(self, place: Place, terms: Terms) -> None:
        """In a program's process."""
        system.setns(self._namespace, system.CLONE_NEWNS)
        system.unshare(system.CLONE_NEWNS)
        furnish_room(terms.disk_bytes, terms.num_files, place.uid, place.gid)


def _lying_at(root: Root) -> Sequence[object]:
    """Tells a folder from another that was put in its place, such as a build that was thrown out and made again."""
    found: list[object] = []
    for path in (*root.readable, *root.mounts.values()):
        try:
            status = os.stat(path)
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return found


def _build_room(place: Place, terms: Terms, waiting: int, done: int) -> NoReturn:
    os.close(waiting)
    with contextlib.suppress(OSError):
        system.unshare(system.CLONE_NEWNS)
        build_room(terms.root.readable, terms.root.mounts, place.uid, place.gid)
        os.write(done, _PREPARED)
        signal.pause()
    os._exit(1)


class Understudy:
    """The keeper's end of it."""

    def __init__(self, pid: int, channel: socket.socket, terms: Terms | None) -> None:
        self.pid = pid
        self._channel = channel
        self._terms = terms  # whose root it stands in

    def fits(self, terms: Terms, room: Room) -> bool:
        return self._terms is None or (self._terms.has_root_of(terms) and room.fits(terms))

    def dismiss(self) -> None:
        """Ends it, unneeded."""
        self._channel.close()
        os.waitpid(self.pid, 0)

    def begin(self, terms: Terms, folder: str, descriptors: Sequence[int]) -> Start:
        """Hands the job over and waits until the program can start; `folder` is for where no root brings one."""
        with self._channel as channel:
            try:
                socket.send_fds(channel, [json.dumps(folder).encode() + b"\n", encode_terms(terms)], descriptors)
                said, given, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 1)
            except ConnectionError:
                said, given = b"", []
        if said.startswith(_READY):
            return Start("", given[0], *map(float, said[1:].split()))
        if said.startswith(_FULL):
            return Start()
        return Start(said.decode("utf-8", "replace") or "the program's process died before it could start")


def prepare(place: Place, room: Room, terms: Terms | None) -> Understudy | Callable[[], None]:
    """Forks the next program's process; for jobs such as `terms` if given, and then in the room.

    Returns something to call in that process alone, when it has become a program.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.detach()  # closed with all else
        return _become_program(place, room, terms, theirs.detach())
    theirs.close()
    if ours.recv(1) == _PREPARED:
        return Understudy(pid, ours, terms)
    ours.close()
    os.waitpid(pid, 0)
    raise OSError("a process cannot be prepared for a program")


def _become_program(place: Place, room: Room, terms: Terms | None, channel: int) -> Callable[[], None]:
    try:
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        os.setsid()
        _invite_the_oom_killer()
        if terms is not None:
            room.enter(place, terms)
        (channel,) = _keep(channel)
    except OSError:
        os._exit(1)
    os.write(channel, _PREPARED)
    return _take_order(place, terms is not None, channel)


def _take_order(place: Place, has_root: bool, channel: int) -> Callable[[], None]:
    message, descriptors, *_ = _receive(channel)
    if not message:
        os._exit(0)
    before_s = time.process_time()
    try:
        folder, terms = _read_message(message)
        channel, order_file, *logs = _take_streams(descriptors[1:4], channel, descriptors[0], *descriptors[4:])
        order = read_order(order_file)
        work = folder or (WORK if has_root else _make_root(place, terms))
        if logs:
            gvisor.prepare(order, terms, order_file, place, *logs)
        else:
            program.prepare(order, terms, order_file, place, work)
    except OSError as error:
        os.write(channel, (_FULL if error.errno in _DISK_ERRORS else b"") + str(error).encode())
        os._exit(1)
    _say_ready(channel, work, before_s)
    return _program(order, terms, place, work, logs)


def _program(order: Order, terms: Terms, place: Place, work: str, logs: Sequence[int]) -> Callable[[], None]:
    if logs:
        gvisor.execute(order, terms, place, program.environment(order, WORK), *logs)
    variables = program.environment(order, work)
    if order.warm and interpreter.runs_warm(order.argv, variables):
        return partial(interpreter.run_warm, order.argv, variables)
    program.execute(order.argv, variables)


def _receive(channel: int) -> tuple[Any, ...]:
    with socket.socket(fileno=os.dup(channel)) as ours:
        return socket.recv_fds(ours, _MESSAGE_BYTES, _MAX_DESCRIPTORS)


def _read_message(message: bytes) -> tuple[str, Terms]:
    folder, _, terms = message.partition(b"\n")
    return json.loads(folder), decode_terms(terms)


def _make_root(place: Place, terms: Terms) -> str:
    """The work folder in a root of the job's own, which is entered where the program's process is the program."""
    system.unshare(system.CLONE_NEWNS)
    root = terms.root
    bounds = (terms.disk_bytes, terms.num_files)
    build_root(root.readable, root.mounts, root.image, *bounds, place.uid, place.gid)
    if place.level == program.GVISOR:
        return NEW_ROOT + WORK
    enter_root(read_only=not root.image)
    return WORK


def _say_ready(channel: int, work: str, before_s: float) -> None:
    """Hands the work folder to the keeper: it will outlive the mount namespace in which it has a name."""
    folder = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(fileno=channel) as tell:
        spent_s = time.process_time()
        socket.send_fds(tell, [_READY, f"{spent_s} {spent_s - before_s}".encode()], [folder])
    os.close(folder)


def _invite_the_oom_killer() -> None:
    """The keeper is exempt where it has the right to be; the program is to go first everywhere."""
    system.set_dumpable(True)  # else the file is root's
    with contextlib.suppress(FileNotFoundError):
        file = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(file, b"1000")
        os.close(file)


def _take_streams(streams: Sequence[int], *kept: int) -> list[int]:
    """Makes the job's streams 0, 1 and 2, moves what is kept right behind them, and closes everything else."""
    high = _lift(*streams, *kept)
    for target, descriptor in enumerate(high):
        os.dup2(descriptor, target, inheritable=target < 3)
    os.closerange(len(high), os.sysconf("SC_OPEN_MAX"))
    return list(range(3, len(high)))


def _keep(*kept: int) -> list[int]:
    """Closes everything but the standard streams and these, which are moved behind them."""
    return _take_streams((0, 1, 2), *kept)


def _lift(*descriptors: int) -> list[int]:
    """Copies of them, out of the way of any that they are to become."""
    high = [os.dup(descriptor) for descriptor in descriptors]
    base = max(high) + 1
    return [os.dup2(descriptor, base + index, inheritable=False) for index, descriptor in enumerate(high)]
