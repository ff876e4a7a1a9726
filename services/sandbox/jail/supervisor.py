"""One job, from the keeper's side: it starts the program's process, waits, ends what is left, and reports.

The keeper holds the rights that the program lacks, and the program can neither signal nor look into it. With the
service it talks over one socket a job: in comes K (end it all) or I (interrupt the program), out goes one report.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from services.sandbox.jail import files, gvisor, processes, program, system
from services.sandbox.jail.mounts import NEW_ROOT, WORK, build_root, enter_root
from services.sandbox.jail.order import Order, Place, Report, Terms, encode_report, read_order

_SAMPLE_S = 0.02
_CHUNK_BYTES = 1 << 18
_FULL = b"\1"  # its files are more than the job may have
_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG)
_READY = b"\0"  # what a program's process says when all is made, with what that cost; else it says what went wrong


@dataclass(frozen=True)
class Channels:
    """A job's descriptors: its order, the program's streams, and the socket to the service."""

    order: int
    stdin: int
    stdout: int
    stderr: int
    control: int

    def close(self) -> None:
        for descriptor in (self.order, self.stdin, self.stdout, self.stderr, self.control):
            os.close(descriptor)


def carry_out(place: Place, terms: Terms, channels: Channels, wake: int) -> Callable[[], None] | None:
    """Carries out one order; everything of the job is gone afterwards.

    `wake` becomes readable when a child ends. Returns something in the program's process alone: what a warm
    interpreter is to run.
    """
    executioner = processes.Executioner(place.uid, place.gid) if place.ends_by_uid else None
    folder = _make_folder(place)
    logs = [os.memfd_create("log")] if place.level == program.GVISOR else []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        return _become_program(place, terms, channels, folder, theirs, logs)
    theirs.close()
    watch = _Watch(place, terms, pid)
    with ours:
        failure, work, spent_s = _hear(ours)
    try:
        if not failure and work < 0:
            watch.stopped = "disk"
        if work >= 0:
            watch.until_it_ends(work, spent_s, wake, channels.control)
        _end_everything(place, executioner, watch)
        report = watch.report(failure, work)
        _report(channels, terms, gvisor.read_log(report, *logs) if logs else report, work)
    finally:
        for log in logs:
            os.close(log)
        channels.close()
        if work >= 0:
            os.close(work)
        _clear(folder)
    return None


def _make_folder(place: Place) -> str:
    """The work folder, where no mount namespace brings its own."""
    if place.has_mounts:
        return ""
    folder = os.path.join(place.scratch, f"{place.uid}-{time.monotonic_ns()}")
    os.mkdir(folder, 0o700)
    if place.uid != os.getuid():
        os.chown(folder, place.uid, place.gid)
    return folder


def _become_program(
    place: Place, terms: Terms, channels: Channels, folder: str, tell: socket.socket, logs: Sequence[int]
) -> Callable[[], None]:
    channel = tell.detach()
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        _invite_the_oom_killer()
        streams = (channels.stdin, channels.stdout, channels.stderr)
        channel, order_file, *logs = _take_streams(streams, channel, channels.order, *logs)
        order = read_order(order_file)
        work = folder or _make_root(place, order, terms)
        if logs:
            gvisor.prepare(order, terms, order_file, place, *logs)
        else:
            program.prepare(order, terms, order_file, place, work)
    except OSError as error:
        os.write(channel, (_FULL if error.errno in _DISK_ERRORS else b"") + str(error).encode())
        os._exit(1)
    _say_ready(channel, work)
    if logs:
        gvisor.execute(order, terms, place, program.environment(order, WORK), *logs)
    variables = program.environment(order, work)
    if order.warm and program.runs_warm(order.argv):
        return partial(program.run_warm, order.argv, variables)
    program.execute(order.argv, variables)


def _make_root(place: Place, order: Order, terms: Terms) -> str:
    """The work folder in a root of the job's own, which is entered where the program's process is the program."""
    system.unshare(system.CLONE_NEWNS)
    build_root(order.readable, order.mounts, terms.disk_bytes, terms.num_files, place.uid, place.gid)
    if place.level == program.GVISOR:
        return NEW_ROOT + WORK
    enter_root()
    return WORK


def _say_ready(channel: int, work: str) -> None:
    """Hands the work folder to the keeper: it will outlive the mount namespace in which it has a name."""
    folder = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(fileno=channel) as tell:
        socket.send_fds(tell, [_READY, str(time.process_time()).encode()], [folder])
    os.close(folder)


def _hear(channel: socket.socket) -> tuple[str, int, float]:
    """What went wrong, or the work folder's descriptor and the CPU time that making the place took.

    Neither, if the job's own files did not fit.
    """
    said, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 1)
    if said.startswith(_READY):
        return "", descriptors[0], float(said[1:])
    if said.startswith(_FULL):
        return "", -1, 0.0
    return said.decode("utf-8", "replace") or "the program's process died before it could start", -1, 0.0


def _invite_the_oom_killer() -> None:
    """The keeper is exempt where it has the right to be; the program is to go first everywhere."""
    system.set_dumpable(True)  # else the file is root's
    with contextlib.suppress(FileNotFoundError):
        file = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(file, b"1000")
        os.close(file)


def _take_streams(streams: tuple[int, int, int], *kept: int) -> list[int]:
    """Makes the job's streams 0, 1 and 2, moves what is kept right behind them, and closes everything else."""
    high = [os.dup(descriptor) for descriptor in (*streams, *kept)]
    base = max(high) + 1
    lifted = [os.dup2(descriptor, base + index, inheritable=False) for index, descriptor in enumerate(high)]
    for target, descriptor in enumerate(lifted):
        os.dup2(descriptor, target, inheritable=target < 3)
    os.closerange(len(lifted), os.sysconf("SC_OPEN_MAX"))
    return list(range(3, len(lifted)))


class _Watch:
    """Waits for the program's end, reaps orphans, obeys the service, and counts where no cgroup does."""

    def __init__(self, place: Place, terms: Terms, pid: int) -> None:
        self._place = place
        self._terms = terms
        self._pid = pid
        self._began = time.monotonic()
        self._own_cpu_s = _own_cpu_s()
        self._wall_s = 0.0
        self._status: int | None = None
        self.stopped = ""
        self._cpu_s = 0.0
        self._peak_bytes = 0

    def until_it_ends(self, work: int, spent_s: float, wake: int, control: int) -> None:
        looks = not (self._place.has_cgroup and self._place.has_mounts)
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(control, select.POLLIN)
        self._began = time.monotonic()
        self._cpu_s = -spent_s
        self._own_cpu_s -= spent_s
        self.reap(os.WNOHANG)  # it may have ended before the signal had somewhere to go
        while self._status is None and not self.stopped:
            for descriptor, _ in poll.poll(_SAMPLE_S * 1000 if looks else None):
                if descriptor == wake:
                    os.read(wake, 4096)
                else:
                    self._obey(control)
            self.reap(os.WNOHANG)
            if looks and self._status is None:
                self.stopped = self.stopped or self._exceeded(work)
        self._wall_s = time.monotonic() - self._began

    def reap(self, options: int) -> None:
        """Takes leave of children that ended. ChildProcessError is caught: there is none (any more)."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, options)
                if pid == 0:
                    return
                self._cpu_s += usage.ru_utime + usage.ru_stime
                self._peak_bytes = max(self._peak_bytes, usage.ru_maxrss << 10)
                if pid == self._pid:
                    self._status = status

    def report(self, failure: str, work: int) -> Report:
        """To be called when everything has been ended and reaped."""
        return Report(
            failure=failure,
            wait_status=signal.SIGKILL if self._status is None else self._status,
            stopped=self.stopped,
            disk_full=work >= 0 and self._disk_is_full(work),
            wall_s=self._wall_s,
            cpu_s=self._cpu_s,
            own_cpu_s=_own_cpu_s() - self._own_cpu_s,
            peak_memory_bytes=self._peak_bytes,
        )

    def _obey(self, control: int) -> None:
        command = os.read(control, 1)
        if command == b"I":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGINT)
        else:
            self.stopped = "asked"  # or nobody is there any more to ask

    def _exceeded(self, work: int) -> str:
        """The limit that the tree has passed, if any, of those that nothing else enforces here."""
        if not self._place.has_cgroup:
            passed = self._tree_exceeds()
            if passed:
                return passed
        return "disk" if self._disk_is_full(work) else ""

    def _tree_exceeds(self) -> str:
        terms = self._terms
        now = processes.sample(os.getpid(), terms.memory_bytes)
        self._peak_bytes = max(self._peak_bytes, now.memory_bytes)
        if now.cpu_s + self._cpu_s > terms.cpu_s:
            return "cpu"
        if now.memory_bytes > terms.memory_bytes:
            return "memory"
        return "processes" if now.num_threads > terms.num_processes else ""

    def _disk_is_full(self, work: int) -> bool:
        if self._place.has_mounts:
            status = os.fstatvfs(work)
            return status.f_bfree == 0 or status.f_ffree == 0
        num_bytes, num_files = files.weigh(f"/proc/self/fd/{work}")
        return num_bytes > self._terms.disk_bytes or num_files > self._terms.num_files


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _end_everything(place: Place, executioner: processes.Executioner | None, watch: _Watch) -> None:
    """Kills and reaps all that the program started, until nothing is left."""
    if executioner:
        executioner.strike()
    while True:
        if place.has_mounts:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        elif not executioner:
            processes.kill_descendants(os.getpid())
        watch.reap(0 if executioner or place.has_mounts else os.WNOHANG)
        if not _has_children():
            return


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _report(channels: Channels, terms: Terms, report: Report, work: int) -> None:
    """Reports. Files are collected by a child, for it must read the order: the keeper is never to know one."""
    if not terms.returns_files or work < 0:
        with contextlib.suppress(ConnectionError):
            _send(channels.control, encode_report(report))
        return
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(ConnectionError):
            _send_with_files(channels, terms, report, work)
        os._exit(0)
    os.waitpid(pid, 0)


def _send_with_files(channels: Channels, terms: Terms, report: Report, work: int) -> None:
    os.lseek(channels.order, 0, os.SEEK_SET)
    found = files.collect(work, read_order(channels.order).return_files, terms.disk_bytes)
    listing = [(file.path, file.size, file.executable) for file in found]
    _send(channels.control, encode_report(replace(report, files=listing)))
    for file in found:
        _send_file(channels.control, file)


def _send_file(control: int, file: files.Found) -> None:
    """Sends as many bytes as were announced; a file that turns out shorter is filled up with zeros."""
    left = file.size
    while left:
        chunk = os.read(file.descriptor, min(left, _CHUNK_BYTES)) or bytes(min(left, _CHUNK_BYTES))
        _send(control, chunk)
        left -= len(chunk)
    os.close(file.descriptor)


def _send(control: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(control, view) :]


def _clear(folder: str) -> None:
    """Removes the work folder where no mount namespace takes it along; `rm` copes with folders of any depth."""
    if folder:
        os.spawnv(os.P_WAIT, "/bin/rm", ["rm", "-rf", "--", folder])
