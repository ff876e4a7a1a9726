"""The process that will be the next program, forked before there is a request (prefork), so that it starts at once.

Where the last two jobs saw the same of the host it also stands in a root like theirs already, with a place to write of
its own. It knows of the host's folders and of nothing that a job brought. Left to do when the request comes: the job's
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
from services.sandbox.jail.protocol import JobRequest, Root, SlotConfig, Terms, decode_terms, encode_terms, read_request

_PREPARED, _READY = b"P", b"\0"  # the process's answers; any other is an error's text
_FULL = b"\1"  # its files are more than the job may have
_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG)
_MAX_DESCRIPTORS = 5  # the request, three streams, and gVisor's log
_MESSAGE_BYTES = 1 << 18


@dataclass(frozen=True)
class ProgramStart:
    """The start of a program's process. `work` is the work folder's descriptor, -1 where there is none."""

    failure: str = ""
    work: int = -1
    cpu_s: float = 0.0  # of the process until then
    new_cpu_s: float = 0.0  # of that, since the request


class Room:
    """A root that jobs of one shape share: read-only, without any place to write, in a mount namespace of its own that
    no process lives in. Each job brings its own place to write, in a copy of that namespace."""

    def __init__(self) -> None:
        self._terms: Terms | None = None  # of the jobs that it is for
        self._folders: Sequence[object] = ()  # what lay at its folders when it was made
        self._namespace = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)  # until there is one

    def fits(self, terms: Terms) -> bool:
        """True if jobs of these terms can use the room as it is."""
        return self._terms is not None and self._terms.root == terms.root and self._folders == _identities(terms.root)

    def build(self, config: SlotConfig, terms: Terms) -> None:
        """Makes it for such jobs, in place of the one there was. It stays as it is if a folder is missing."""
        folders = _identities(terms.root)
        waiting, done = os.pipe()
        pid = os.fork()
        if pid == 0:
            _build_room(config, terms, waiting, done)
        os.close(done)
        try:
            if os.read(waiting, 1):
                namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
                os.dup2(namespace, self._namespace, inheritable=False)
                os.close(namespace)
                self._terms, self._folders = terms, folders
        finally:
            os.close(waiting)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def enter(self, config: SlotConfig, terms: Terms) -> None:
        """Enters a copy of the room, in a program's process, with a place to write."""
        system.setns(self._namespace, system.CLONE_NEWNS)
        system.unshare(system.CLONE_NEWNS)
        furnish_room(terms.disk_bytes, terms.num_files, config.uid, config.gid)


def _identities(root: Root) -> Sequence[object]:
    """Identifies the root's folders by device and inode: a build that was removed and made again is another folder."""
    found: list[object] = []
    for path in (*root.readable, *root.mounts.values()):
        try:
            status = os.stat(path)
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return found


def _build_room(config: SlotConfig, terms: Terms, waiting: int, done: int) -> NoReturn:
    os.close(waiting)
    with contextlib.suppress(OSError):
        system.unshare(system.CLONE_NEWNS)
        build_room(terms.root.readable, terms.root.mounts, config.uid, config.gid)
        os.write(done, _PREPARED)
        signal.pause()
    os._exit(1)


class StandbyProgram:
    """The keeper's handle on a prepared process."""

    def __init__(self, pid: int, channel: socket.socket, terms: Terms | None) -> None:
        self.pid = pid
        self._channel = channel
        self._terms = terms  # whose root it stands in

    def fits(self, terms: Terms, room: Room) -> bool:
        """True if the prepared process can become the program of such a job."""
        return self._terms is None or (self._terms.has_root_of(terms) and room.fits(terms))

    def dismiss(self) -> None:
        """Ends the process unused."""
        self._channel.close()
        os.waitpid(self.pid, 0)

    def begin(self, terms: Terms, folder: str, descriptors: Sequence[int]) -> ProgramStart:
        """Hands the job over and waits until the program can start; `folder` is for where no root brings one."""
        with self._channel as channel:
            try:
                socket.send_fds(channel, [json.dumps(folder).encode() + b"\n", encode_terms(terms)], descriptors)
                answer, received, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 1)
            except ConnectionError:
                answer, received = b"", []
        if answer.startswith(_READY):
            return ProgramStart("", received[0], *map(float, answer[1:].split()))
        if answer.startswith(_FULL):
            return ProgramStart()
        return ProgramStart(answer.decode("utf-8", "replace") or "the program's process died before it could start")


def prepare(config: SlotConfig, room: Room, terms: Terms | None) -> StandbyProgram | Callable[[], None]:
    """Forks the next program's process; for jobs such as `terms` if given, and then in the room.

    Returns something to call in that process alone, when it has become a program.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.detach()  # closed with all else
        return _become_program(config, room, terms, theirs.detach())
    theirs.close()
    if ours.recv(1) == _PREPARED:
        return StandbyProgram(pid, ours, terms)
    ours.close()
    os.waitpid(pid, 0)
    raise OSError("a process cannot be prepared for a program")


def _become_program(config: SlotConfig, room: Room, terms: Terms | None, channel: int) -> Callable[[], None]:
    try:
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        os.setsid()
        _prefer_for_oom_kill()
        if terms is not None:
            room.enter(config, terms)
        (channel,) = _keep(channel)
    except OSError:
        os._exit(1)
    os.write(channel, _PREPARED)
    return _take_request(config, terms is not None, channel)


def _take_request(config: SlotConfig, has_root: bool, channel: int) -> Callable[[], None]:
    message, descriptors, *_ = _receive(channel)
    if not message:
        os._exit(0)
    before_s = time.process_time()
    try:
        folder, terms = _read_message(message)
        channel, request_file, *logs = _take_streams(descriptors[1:4], channel, descriptors[0], *descriptors[4:])
        request = read_request(request_file)
        work = folder or (WORK if has_root else _make_root(config, terms))
        if logs:
            gvisor.prepare(request, terms, request_file, config, *logs)
        else:
            program.prepare(request, terms, request_file, config, work)
    except OSError as error:
        os.write(channel, (_FULL if error.errno in _DISK_ERRORS else b"") + str(error).encode())
        os._exit(1)
    _report_ready(channel, work, before_s)
    return _program(request, terms, config, work, logs)


def _program(
    request: JobRequest, terms: Terms, config: SlotConfig, work: str, logs: Sequence[int]
) -> Callable[[], None]:
    if logs:
        gvisor.execute(request, terms, config, program.environment(request, WORK), *logs)
    variables = program.environment(request, work)
    if request.warm and interpreter.runs_warm(request.argv, variables):
        return partial(interpreter.run_warm, request.argv, variables)
    program.execute(request.argv, variables)


def _receive(channel: int) -> tuple[Any, ...]:
    with socket.socket(fileno=os.dup(channel)) as ours:
        return socket.recv_fds(ours, _MESSAGE_BYTES, _MAX_DESCRIPTORS)


def _read_message(message: bytes) -> tuple[str, Terms]:
    folder, _, terms = message.partition(b"\n")
    return json.loads(folder), decode_terms(terms)


def _make_root(config: SlotConfig, terms: Terms) -> str:
    """The work folder in a root of the job's own, which is entered where the program's process is the program."""
    system.unshare(system.CLONE_NEWNS)
    root = terms.root
    bounds = (terms.disk_bytes, terms.num_files)
    build_root(root.readable, root.mounts, root.image, *bounds, config.uid, config.gid)
    if config.level == program.GVISOR:
        return NEW_ROOT + WORK
    enter_root(read_only=not root.image)
    return WORK


def _report_ready(channel: int, work: str, before_s: float) -> None:
    """Hands the work folder to the keeper: it will outlive the mount namespace in which it has a name."""
    folder = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(fileno=channel) as keeper:
        spent_s = time.process_time()
        socket.send_fds(keeper, [_READY, f"{spent_s} {spent_s - before_s}".encode()], [folder])
    os.close(folder)


def _prefer_for_oom_kill() -> None:
    """Marks the program as the first to kill; the keeper is exempt where it has the right to be."""
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
