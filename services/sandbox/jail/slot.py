"""A slot runs one job at a time: its keeper, and the job that runs under it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.sandbox.jail.cgroups import Cgroup, Charge
from services.sandbox.jail.output import Drain, Lines
from services.sandbox.jail.protocol import (
    NEXT,
    JobRequest,
    KeeperReport,
    Root,
    SlotConfig,
    Terms,
    decode_report,
    encode_terms,
    memory_file,
    write_request,
)
from services.sandbox.jail.verdict import Decision, decide
from services.sandbox.job import File, Job, JobOutcome, Output, Verdict

logger = logging.getLogger(__name__)

_BOOT = (
    "import sys; sys.path.insert(0, {root!r}); from services.sandbox.jail.keeper import main; sys.path.pop(0); main()"
)
_ROOT = Path(__file__).parents[3]
_WATCH_S = 0.05  # how often a job's charge is looked at
_STARVED_LOOKS = 10  # in a row that a job may be without memory to go on with
_GRACE_S = 10.0  # for the keeper to end a job when asked
_START_S = 120.0
_REMOVALS = 100  # attempts, with _WATCH_S between
_NUM_STREAMS = 3
_REPORT_BYTES = 1 << 30  # what a report with its files may take at most


class KeeperError(Exception):
    """The keeper could not start, or is gone; the message says why."""


@dataclass(frozen=True)
class _Ends:
    """Our ends of a job's streams; those of what the program reads may be absent."""

    stdin: int
    stdout: int
    stderr: int
    control: socket.socket


class Slot:
    """A keeper and, where there are control groups, its group. Start it, run jobs one at a time, close it."""

    def __init__(self, config: SlotConfig, python: Path, cgroup: Cgroup | None) -> None:
        self._config = config
        self._python = python
        self._cgroup = cgroup
        self._process: asyncio.subprocess.Process | None = None
        self._requests: socket.socket | None = None
        self.interpreter_folders: list[Path] = []  # known once it started

    async def start(self) -> None:
        """Starts the keeper. KeeperError: it cannot make the slot's namespaces here."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._requests = ours
        arguments = ("-B", "-s", "-P", "-c", _BOOT.format(root=str(_ROOT)), json.dumps(asdict(self._config)))
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(str(self._python), *arguments, str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0"},
                cwd="/",
            )
        try:
            if self._cgroup:
                self._cgroup.add(self._process.pid)
            await asyncio.get_running_loop().sock_sendall(ours, b"S")
            answer = await self._answer(_START_S)
        except OSError as error:
            raise KeeperError(f"the keeper ended at its start: {error}") from error
        if "failure" in answer:
            raise KeeperError(str(answer["failure"]))
        self.interpreter_folders = [Path(str(folder)) for folder in answer["folders"]]

    async def close(self) -> None:
        """Ends the keeper with all that runs in the slot, and gives the control group back."""
        await self._stop_keeper()
        for _ in range(_REMOVALS):
            try:
                if self._cgroup:
                    self._cgroup.remove()
                return
            except OSError:  # the last processes are on their way out
                await asyncio.sleep(_WATCH_S)
        logger.warning("a control group could not be removed; the next start tries again")

    async def begin(self, job: Job, live: bool) -> Run:
        """Starts a job; `live` keeps its stdin and stdout open for a conversation. KeeperError: the slot is broken."""
        if self._requests is None or self._process is None or self._process.returncode is not None:
            await self._restart()
        given: list[int] = []
        ends = None
        try:
            if self._cgroup:
                # The program's own process is there already.
                num_more = job.limits.num_processes - 1 + (1 if self._config.ends_by_uid else 0)
                self._cgroup.arm(job.limits.memory_bytes, num_more)
            given.append(write_request(_request(job), [file.content for file in job.files]))
            ends, streams = _streams(job, live)
            given += streams
            self._send(_terms(job), given)
        except OSError as error:
            if ends:
                _close_ends(ends)
            raise KeeperError(f"the job could not be handed over: {error}") from error
        finally:
            for descriptor in given:
                os.close(descriptor)
        return Run(job, ends, self._cgroup, live, self._kill)

    def _send(self, terms: Terms, given: list[int]) -> None:
        """Hands the request's, the streams' and the control socket's descriptors to the keeper."""
        assert self._requests is not None
        if self._config.uid != os.getuid():
            for descriptor in given[1 : 1 + _NUM_STREAMS]:
                os.fchown(descriptor, self._config.uid, self._config.gid)  # it may open /dev/stdout too
        socket.send_fds(self._requests, [encode_terms(terms)], given)

    async def clear(self) -> None:
        """Waits until everything of the last job is gone, and all is ready for the next."""
        try:
            if self._requests is None:
                raise KeeperError("the keeper has been stopped")
            await asyncio.get_running_loop().sock_sendall(self._requests, NEXT)
            await self._answer(_GRACE_S)
        except (OSError, KeeperError):
            logger.warning("a slot's keeper is gone or hangs; it is restarted")
            await self._restart()

    def _kill(self) -> None:
        """Ends the keeper and with it the job; `clear` starts another."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _restart(self) -> None:
        await self._stop_keeper()
        await self.start()

    async def _stop_keeper(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None
            await self._sweep()

    async def _sweep(self) -> None:
        """Ends what a job whose keeper died has left. With a process namespace the kernel does it.

        From here: the keeper's control group may have no room for another process.
        """
        if not self._config.ends_by_uid:
            return
        sweeper = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", "kill -9 -1"),
            user=self._config.uid,
            group=self._config.gid,
            extra_groups=(),
            stderr=asyncio.subprocess.DEVNULL,  # it complains where there is no process
        )
        await sweeper.wait()
        for folder in Path(self._config.scratch).glob(f"{self._config.uid}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    async def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._requests is not None
        try:
            async with asyncio.timeout(timeout_s):
                message = await asyncio.get_running_loop().sock_recv(self._requests, 1 << 16)
        except TimeoutError as error:
            raise KeeperError(f"the keeper said nothing for {timeout_s:g} s") from error
        if not message:
            raise KeeperError("the keeper ended")
        return json.loads(message)


class Run:
    """A job that runs: its streams, its limits watched from outside, its end."""

    def __init__(self, job: Job, ends: _Ends, cgroup: Cgroup | None, live: bool, kill: Callable[[], None]) -> None:
        self._job = job
        self._ends = ends
        self._cgroup = cgroup
        self._kill = kill
        self._began = time.monotonic()
        self._stopped: tuple[Verdict, str] | None = None
        self._num_starved = 0  # looks in a row
        self._loop = asyncio.get_running_loop()
        limit = job.limits.output_bytes
        self.is_over = False
        self.lines = Lines(ends.stdout, limit, self._too_much_output) if live else None
        self._stdout = self.lines or Drain(ends.stdout, limit, self._too_much_output)
        # A conversation may go on for long, and what it says on the side is only kept as far as the limit goes.
        self._stderr = Drain(ends.stderr, limit, (lambda: None) if live else self._too_much_output)
        self._report = Drain(os.dup(ends.control.fileno()), _REPORT_BYTES, lambda: None)
        self._timer = self._loop.call_later(self._pause_s(), self._watch)

    def stop(self, verdict: Verdict, reason: str) -> None:
        """Has the keeper end everything; the first reason stands."""
        if self._stopped is None:
            self._stopped = (verdict, reason)
            self._command(b"K")
            self._timer.cancel()
            self._timer = self._loop.call_later(_GRACE_S, self._kill)

    def interrupt(self) -> None:
        """Sends the program a SIGINT."""
        self._command(b"I")

    async def send(self, data: bytes) -> None:
        """Writes to the program's stdin. BrokenPipeError once it has ended."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._ends.stdin, view) :]
            except BlockingIOError:
                await self._writable()

    async def outcome(self) -> JobOutcome:
        """Waits for the end."""
        try:
            await self._report.ended
            await asyncio.gather(self._stdout.finish(), self._stderr.finish())
        finally:
            self._close()
        charge = self._cgroup.charge() if self._cgroup else None
        try:
            report, contents = decode_report(self._report.output().content)
        except ValueError as error:
            report, contents = self._without_report(str(error)), b""
        stderr = self._stderr.output()
        decision = decide(report, charge, self._job.limits, self._stopped, stderr.content)
        return _outcome(decision, report, charge, (self._stdout.output(), stderr), contents, self._began)

    def _without_report(self, why: str) -> KeeperReport:
        """The keeper died: by our own hand; else it is a failure."""
        return (
            KeeperReport(wait_status=signal.SIGKILL)
            if self._stopped
            else KeeperReport(failure=f"the keeper died: {why}")
        )

    def _too_much_output(self) -> None:
        self.stop(Verdict.OUTPUT_LIMIT, f"more than {self._job.limits.output_bytes} bytes of output")

    def _watch(self) -> None:
        limits = self._job.limits
        if time.monotonic() - self._began >= limits.wall_s:
            self.stop(Verdict.TIME_LIMIT, f"more than {limits.wall_s:g} s")
            return
        if self._cgroup:
            charge = self._cgroup.charge()
            if charge.cpu_s > limits.cpu_s:
                self.stop(Verdict.TIME_LIMIT, f"more than {limits.cpu_s:g} s of CPU time")
                return
            if charge.num_oom_kills or charge.num_refused_processes:
                self.stop(Verdict.MEMORY_LIMIT, "")  # which of the two it was, the charge tells in the end
                return
            self._num_starved = self._num_starved + 1 if self._cgroup.is_starved() else 0
            if self._num_starved == _STARVED_LOOKS:
                self.stop(Verdict.MEMORY_LIMIT, f"no room left to run in {limits.memory_bytes} bytes of memory")
                return
        self._timer = self._loop.call_later(self._pause_s(), self._watch)

    def _pause_s(self) -> float:
        left_s = self._job.limits.wall_s - (time.monotonic() - self._began)
        return max(0.001, min(left_s, _WATCH_S if self._cgroup else left_s))

    def _command(self, command: bytes) -> None:
        with contextlib.suppress(OSError):
            self._ends.control.send(command, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._ends.stdin, _settle, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._ends.stdin)

    def _close(self) -> None:
        self.is_over = True
        self._timer.cancel()
        for drain in (self._stdout, self._stderr, self._report):
            drain.close()
        self._ends.control.close()
        if self._ends.stdin >= 0:
            os.close(self._ends.stdin)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _terms(job: Job) -> Terms:
    limits = job.limits
    return Terms(
        cpu_s=limits.cpu_s,
        memory_bytes=limits.memory_bytes,
        num_processes=limits.num_processes,
        file_bytes=limits.file_bytes,
        num_files=limits.num_files,
        disk_bytes=limits.disk_bytes,
        returns_files=bool(job.return_files),
        root=Root(
            readable=[str(path) for path in job.readable],
            mounts={inside: str(outside) for inside, outside in job.mounts.items()},
            image=str(job.image or ""),
        ),
    )


def _request(job: Job) -> JobRequest:
    return JobRequest(
        argv=list(job.argv),
        environment=dict(job.environment),
        warm=job.warm == "python",
        files=[(file.path, len(file.content), file.executable) for file in job.files],
        return_files=list(job.return_files),
    )


def _streams(job: Job, live: bool) -> tuple[_Ends, list[int]]:
    """Our ends, and the program's: stdin, stdout, stderr and the supervisor's control socket."""
    if live:
        stdin, our_stdin = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(our_stdin, False)
    else:
        stdin, our_stdin = memory_file("stdin", [job.stdin]), -1
        os.lseek(stdin, 0, os.SEEK_SET)
    our_stdout, stdout = os.pipe2(os.O_CLOEXEC)
    our_stderr, stderr = os.pipe2(os.O_CLOEXEC)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return _Ends(our_stdin, our_stdout, our_stderr, ours), [stdin, stdout, stderr, theirs.detach()]


def _close_ends(ends: _Ends) -> None:
    for descriptor in (ends.stdin, ends.stdout, ends.stderr):
        if descriptor >= 0:
            os.close(descriptor)
    ends.control.close()


def _outcome(
    decision: Decision,
    report: KeeperReport,
    charge: Charge | None,
    outputs: tuple[Output, Output],
    contents: bytes,
    began: float,
) -> JobOutcome:
    files, start = [], 0
    for path, size, executable in report.files:
        if start + size <= len(contents):
            files.append(File(path, contents[start : start + size], executable))
        start += size
    # The group also counted the keeper; the report alone misses children that were never waited for.
    cpu_s = max(report.cpu_s, charge.cpu_s - report.own_cpu_s) if charge else report.cpu_s
    return JobOutcome(
        verdict=decision.verdict,
        reason=decision.reason,
        exit_code=decision.exit_code,
        signal=decision.signal,
        stdout=outputs[0],
        stderr=outputs[1],
        cpu_s=cpu_s,
        wall_s=report.wall_s or time.monotonic() - began,
        peak_memory_bytes=charge.peak_memory_bytes if charge else report.peak_memory_bytes,
        files=tuple(files),
    )


def base_python() -> Path:
    """The interpreter below any virtual environment."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
