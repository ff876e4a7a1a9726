"""One job, from the keeper's side: it starts the program's process, waits, ends what is left, and reports.

The keeper holds the rights that the program lacks, and the program can neither signal nor look into it. With the
service it talks over one socket a job: in comes K (end it all) or I (interrupt the program), out goes one report.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from dataclasses import dataclass, replace

from services.sandbox.jail import files, gvisor, processes, program
from services.sandbox.jail.protocol import KeeperReport, SlotConfig, Terms, encode_report, read_request
from services.sandbox.jail.standby import ProgramStart, StandbyProgram

_SAMPLE_S = 0.02
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Channels:
    """A job's descriptors: its request, the program's streams, and the socket to the service."""

    request: int
    stdin: int
    stdout: int
    stderr: int
    control: int

    @property
    def of_the_program(self) -> tuple[int, int, int, int]:
        """The descriptors that the program's process gets."""
        return self.request, self.stdin, self.stdout, self.stderr

    def close(self) -> None:
        """Closes all of them."""
        for descriptor in (self.request, self.stdin, self.stdout, self.stderr, self.control):
            os.close(descriptor)


def run_job(config: SlotConfig, terms: Terms, channels: Channels, wake: int, standby: StandbyProgram) -> None:
    """Runs one job; everything of it is gone afterwards. `wake` becomes readable when a child ends."""
    uid_killer = processes.UidKiller(config.uid, config.gid) if config.ends_by_uid else None
    folder = _make_folder(config)
    logs = [os.memfd_create("log")] if config.level == program.GVISOR else []
    start = standby.begin(terms, folder, [*channels.of_the_program, *logs])
    watch = _Watch(config, terms, standby.pid)
    try:
        if not start.failure and start.work < 0:
            watch.stopped = "disk"
        if start.work >= 0:
            watch.until_it_ends(start, wake, channels.control)
        _end_everything(config, uid_killer, watch)
        report = watch.report(start)
        _report(channels, terms, gvisor.read_log(report, *logs) if logs else report, start.work)
    finally:
        for log in logs:
            os.close(log)
        channels.close()
        if start.work >= 0:
            os.close(start.work)
        _clear(folder)


def _make_folder(config: SlotConfig) -> str:
    """The work folder, where no mount namespace brings its own."""
    if config.has_mounts:
        return ""
    folder = os.path.join(config.scratch, f"{config.uid}-{time.monotonic_ns()}")
    os.mkdir(folder, 0o700)
    if config.uid != os.getuid():
        os.chown(folder, config.uid, config.gid)
    return folder


class _Watch:
    """Waits for the program's end, reaps orphans, obeys the service, and counts where no cgroup does."""

    def __init__(self, config: SlotConfig, terms: Terms, pid: int) -> None:
        self._config = config
        self._terms = terms
        self._pid = pid
        self._began = time.monotonic()
        self._own_cpu_s = _own_cpu_s()
        self._wall_s = 0.0
        self._status: int | None = None
        self.stopped = ""
        self._cpu_s = 0.0
        self._peak_bytes = 0

    def until_it_ends(self, start: ProgramStart, wake: int, control: int) -> None:
        polls = not (self._config.has_cgroup and self._config.has_mounts)
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(control, select.POLLIN)
        self._began = time.monotonic()
        self._cpu_s = -start.cpu_s
        self._own_cpu_s -= start.new_cpu_s
        self.reap(os.WNOHANG)  # it may have ended before the signal had somewhere to go
        while self._status is None and not self.stopped:
            for descriptor, _ in poll.poll(_SAMPLE_S * 1000 if polls else None):
                if descriptor == wake:
                    os.read(wake, 4096)
                else:
                    self._handle_command(control)
            self.reap(os.WNOHANG)
            if polls and self._status is None:
                self.stopped = self.stopped or self._exceeded_limit(start.work)
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

    def report(self, start: ProgramStart) -> KeeperReport:
        """Makes the report, when everything has been ended and reaped."""
        return KeeperReport(
            failure=start.failure,
            wait_status=signal.SIGKILL if self._status is None else self._status,
            stopped=self.stopped,
            disk_full=start.work >= 0 and self._disk_is_full(start.work),
            wall_s=self._wall_s,
            cpu_s=self._cpu_s,
            own_cpu_s=_own_cpu_s() - self._own_cpu_s,
            peak_memory_bytes=self._peak_bytes,
        )

    def _handle_command(self, control: int) -> None:
        command = os.read(control, 1)
        if command == b"I":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGINT)
        else:
            self.stopped = "requested"  # or the service is gone

    def _exceeded_limit(self, work: int) -> str:
        """The limit that the tree has passed, if any, of those that nothing else enforces here."""
        if not self._config.has_cgroup:
            passed = self._exceeded_usage()
            if passed:
                return passed
        return "disk" if self._disk_is_full(work) else ""

    def _exceeded_usage(self) -> str:
        terms = self._terms
        now = processes.measure_usage(os.getpid(), terms.memory_bytes)
        self._peak_bytes = max(self._peak_bytes, now.memory_bytes)
        if now.cpu_s + self._cpu_s > terms.cpu_s:
            return "cpu"
        if now.memory_bytes > terms.memory_bytes:
            return "memory"
        return "processes" if now.num_threads > terms.num_processes else ""

    def _disk_is_full(self, work: int) -> bool:
        if self._config.has_mounts:
            status = os.fstatvfs(work)
            return status.f_bfree == 0 or status.f_ffree == 0
        num_bytes, num_files = files.weigh(f"/proc/self/fd/{work}")
        return num_bytes > self._terms.disk_bytes or num_files > self._terms.num_files


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _end_everything(config: SlotConfig, uid_killer: processes.UidKiller | None, watch: _Watch) -> None:
    """Kills and reaps all that the program started, until nothing is left."""
    if uid_killer:
        uid_killer.kill()
    while True:
        if config.has_mounts:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        elif not uid_killer:
            processes.kill_descendants(os.getpid())
        watch.reap(0 if uid_killer or config.has_mounts else os.WNOHANG)
        if not _has_children():
            return


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _report(channels: Channels, terms: Terms, report: KeeperReport, work: int) -> None:
    """Reports. Files are collected by a child, for it must read the request, which the keeper never does."""
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


def _send_with_files(channels: Channels, terms: Terms, report: KeeperReport, work: int) -> None:
    os.lseek(channels.request, 0, os.SEEK_SET)
    found = files.collect(work, read_request(channels.request).return_files, terms.disk_bytes)
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
