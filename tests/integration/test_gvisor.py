"""The level `gvisor`: programs under a kernel of their own, with the outcomes of every other level.

Where there is no gVisor, or no root or control groups for it, the service must refuse to start and say which it is:
the tests then hold it to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perilune.errors import MissingDependencyError
from services.sandbox.config import JailSettings
from services.sandbox.jail.levels import open_pool
from services.sandbox.jail.pool import Pool
from services.sandbox.job import File, Job, JobOutcome, Limits, Verdict
from tests.integration.gvisor import MISSING
from tests.integration.jails import Remains, interpreter, left_behind, python, shell

LEVEL = "gvisor"
SETTINGS = JailSettings(levels=LEVEL, num_slots=1)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[Pool | None]:
    """One slot; none where gVisor cannot be had."""
    if MISSING:
        yield None
        return
    opened = await open_pool(SETTINGS)
    yield opened
    await opened.close()


async def _run(pool: Pool | None, job: Job) -> JobOutcome | None:
    """What becomes of a job; nothing, once it is sure that no service would have taken it."""
    if pool is None:
        with pytest.raises(MissingDependencyError, match=f"gvisor: .*{MISSING}"):
            await open_pool(SETTINGS)
        return None
    return await pool.run(job)


def _spin(limits: Limits) -> Job:
    return python("while True: pass", LEVEL, limits=limits)


ENDINGS = {
    "output": (python("print(input()[::-1])", LEVEL, stdin=b"tip\n"), Verdict.OK, 0),
    "exit code": (python("raise SystemExit(3)", LEVEL), Verdict.RUNTIME_ERROR, 3),
    "exit code that looks like a signal": (shell("exit 139"), Verdict.RUNTIME_ERROR, 139),
    "signal": (shell("kill -SEGV $$"), Verdict.RUNTIME_ERROR, "SIGSEGV"),
    "no program": (Job(["no-such-program"]), Verdict.RUNTIME_ERROR, 127),
    "no executable": (Job(["/etc/passwd"]), Verdict.RUNTIME_ERROR, 126),
}


@pytest.mark.parametrize(("job", "verdict", "ending"), ENDINGS.values(), ids=ENDINGS.keys())
async def test_programs_end_as_everywhere(pool: Pool | None, job: Job, verdict: Verdict, ending: int | str) -> None:
    outcome = await _run(pool, job)
    if outcome:
        assert (outcome.verdict, outcome.signal or outcome.exit_code) == (verdict, ending), outcome


EXCESSES = {
    "cpu": (_spin(Limits(cpu_s=0.5)), Verdict.TIME_LIMIT),
    "clock": (shell("sleep 60", limits=Limits(wall_s=1.0)), Verdict.TIME_LIMIT),
    "memory": (python("b'x' * (1 << 28)", LEVEL, limits=Limits(memory_bytes=1 << 27)), Verdict.MEMORY_LIMIT),
    "output": (shell("yes", limits=Limits(output_bytes=1000)), Verdict.OUTPUT_LIMIT),
    "processes": (
        python("import os\nwhile os.fork(): pass\nwhile True: pass", LEVEL, limits=Limits(num_processes=8)),
        Verdict.PROCESS_LIMIT,
    ),
    "processes, taken calmly": (
        python(
            "import os\ntry:\n    while os.fork(): pass\nexcept OSError: pass", LEVEL, limits=Limits(num_processes=8)
        ),
        Verdict.PROCESS_LIMIT,
    ),
    "disk": (shell("cat /dev/zero >/dev/shm/full", limits=Limits(disk_bytes=1 << 20)), Verdict.DISK_LIMIT),
    "files": (shell("for n in {1..40}; do >$n || exit 1; done", limits=Limits(num_files=20)), Verdict.DISK_LIMIT),
    "given file": (
        python("", LEVEL, files=(File("big", bytes(2 << 20)),), limits=Limits(file_bytes=1 << 20)),
        Verdict.DISK_LIMIT,
    ),
}


@pytest.mark.parametrize(("job", "verdict"), EXCESSES.values(), ids=EXCESSES.keys())
async def test_limits_hold(pool: Pool | None, job: Job, verdict: Verdict) -> None:
    outcome = await _run(pool, job)
    if outcome:
        assert outcome.verdict is verdict, outcome


async def test_the_kernel_is_not_the_hosts(pool: Pool | None) -> None:
    source = """
import os, pathlib, socket
print(os.getuid() >= 61000, os.getpid(), os.uname().nodename)
print(pathlib.Path("/proc/version").read_text(), end="")
print([name for name in ("/root/.bashrc", "/etc/shadow", "/var", "/home") if os.path.exists(name)])
print([name for name in ("/", "/usr", "/usr/lib", "/etc/passwd") if os.access(name, os.W_OK)])
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print("no network")
"""
    outcome = await _run(pool, python(source, LEVEL))
    if outcome:
        first, version, *rest = outcome.stdout.content.decode().splitlines()
        assert first == "True 1 sandbox"
        assert version != Path("/proc/version").read_text().strip()
        assert rest == ["[]", "[]", "no network"], outcome


async def test_files_go_in_and_come_back(pool: Pool | None, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "built").write_text("of the host, ")
    source = """
cat data/in.txt /built/built >out.txt
ln -s /etc/passwd link
mkfifo pipe
>/built/written || echo "refused" >>out.txt
"""
    files = [File("main.sh", source.encode()), File("data/in.txt", b"given, ")]
    job = shell("", mounts={"/built": tmp_path}, return_files=["*"])
    outcome = await _run(pool, Job(**{**vars(job), "files": files}))
    if outcome:
        assert {file.path: file.content for file in outcome.files} == {
            "main.sh": source.encode(),
            "out.txt": b"given, of the host, refused\n",
        }


async def test_usage_is_the_programs_and_not_the_kernels(pool: Pool | None) -> None:
    source = """
import os
if os.fork() == 0:
    block = b"x" * (64 << 20)
    for _ in range(30_000_000):  # not by a clock: that kernel's runs on while the host is busy with others
        pass
    os._exit(0)
os.wait()
"""
    idle, busy = await _run(pool, shell("true")), await _run(pool, python(source, LEVEL))
    if idle and busy:
        assert busy.cpu_s - idle.cpu_s > 0.2
        assert idle.peak_memory_bytes < 32 << 20
        assert 64 << 20 < busy.peak_memory_bytes < 128 << 20


async def test_a_conversation_can_be_interrupted_and_goes_on(pool: Pool | None) -> None:
    source = """
import time

try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(input()[::-1], flush=True)
"""
    if pool is None:
        await _run(pool, python(source, LEVEL))
        return
    async with pool.open(python(source, LEVEL)) as conversation:
        assert await conversation.receive_line() == b"ready\n"
        await conversation.interrupt()
        assert await conversation.receive_line() == b"interrupted\n"
        await conversation.send(b"spam\n")
        assert await conversation.receive_line() == b"maps\n"


async def test_nothing_is_left_behind(pool: Pool | None) -> None:
    daemon = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)"
    if pool is not None:
        await _idle(pool)
    before = Remains.now()
    for job in (python(daemon, LEVEL), _spin(Limits(cpu_s=0.1)), shell("true")):
        await _run(pool, job)
    if pool is not None:
        await _idle(pool)
    after = Remains.now()
    assert not left_behind(before, after), (before, after)


async def test_the_level_is_told(pool: Pool | None) -> None:
    if pool is None:
        await _run(pool, shell("true"))
        return
    assert pool.isolation.level == LEVEL
    assert {"gvisor-systrap", "network", "tmpfs", "read-only-root", "uid"} <= set(pool.isolation.mechanisms)


async def test_a_runsc_that_is_none_is_refused_with_the_reason(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"runsc": tmp_path / "runsc"})
    with pytest.raises(MissingDependencyError, match=r"gvisor: .*(needs|no runsc .*PERILUNE_SANDBOX_RUNSC)"):
        await open_pool(settings)
    (tmp_path / "runsc").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "runsc").chmod(0o755)
    with pytest.raises(MissingDependencyError, match=r"gvisor: .*(needs|runsc ended without a word)"):
        await open_pool(settings)


async def test_the_weaker_level_is_taken_where_it_is_accepted_too(tmp_path: Path) -> None:
    accepted = JailSettings(levels="gvisor,rlimits", num_slots=1, python=interpreter("rlimits"))
    weaker = await open_pool(accepted.model_copy(update={"runsc": tmp_path / "runsc"}))
    await weaker.close()
    assert weaker.isolation.level == "rlimits"
    assert weaker.unavailable_levels["gvisor"]


async def _idle(pool: Pool) -> None:
    while pool.num_busy:
        await asyncio.sleep(0.005)
