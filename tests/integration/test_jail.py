"""The jail itself: what programs find in it, who waits for a slot, and what happens when parts of it die."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from perilune.errors import MissingDependencyError
from services.sandbox.config import JailSettings
from services.sandbox.jail.levels import open_pool
from services.sandbox.jail.pool import Pool
from services.sandbox.job import BusyError, File, Limits, Verdict
from tests.integration.jails import interpreter, python, readable, shell

LEVEL = "namespaces" if os.getuid() == 0 else "user-namespaces"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[Pool]:
    """One slot, and room for one job to wait."""
    settings = JailSettings(levels=LEVEL, num_slots=1, max_waiting=1, python=interpreter(LEVEL))
    opened = await open_pool(settings)
    yield opened
    await opened.close()


async def _idle(pool: Pool) -> None:
    while pool.num_busy:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("warm", [True, False])
async def test_a_program_finds_what_it_would_find_elsewhere(pool: Pool, warm: bool) -> None:
    source = """
import atexit, os, sys

class Last:
    def __del__(self):
        print("the last object goes")

last = Last()
atexit.register(print, "exit function")
print(sys.argv, __name__, __file__, os.getcwd(), sys.path[0], open("data/in.txt").read(), input())
print(os.environ["COLOUR"], os.environ["HOME"], sys.stdin.encoding, sys.stdout.name)
sys.exit("so it ends")
"""
    job = python(
        source, LEVEL, warm=warm, files=(File("data/in.txt", b"data"),), stdin=b"line\n", environment={"COLOUR": "blue"}
    )
    outcome = await pool.run(replace(job, argv=[*job.argv, "one", "two"]))
    assert outcome.stdout.content.decode().splitlines() == [
        "['main.py', 'one', 'two'] __main__ /box/main.py /box /box data line",
        "blue /box utf-8 <stdout>",
        "exit function",
        "the last object goes",
    ]
    assert outcome.stderr.content == b"so it ends\n"
    assert (outcome.verdict, outcome.exit_code) == (Verdict.RUNTIME_ERROR, 1)


@pytest.mark.parametrize("warm", [True, False])
async def test_an_error_is_told_as_the_interpreter_tells_it(pool: Pool, warm: bool) -> None:
    outcome = await pool.run(python("def f():\n    return 1 // 0\n\n\nf()\n", LEVEL, warm=warm))
    lines = outcome.stderr.content.decode().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("ZeroDivisionError: ")
    assert sum("File" in line for line in lines) == 2
    assert outcome.exit_code == 1


async def test_warm_programs_do_not_share_their_chance(pool: Pool) -> None:
    drawn = {(await pool.run(python("import random; print(random.random())", LEVEL))).stdout.content for _ in range(3)}
    assert len(drawn) == 3


async def test_modules_and_commands_run_warm_too(pool: Pool) -> None:
    job = python("", LEVEL)
    outcome = await pool.run(replace(job, argv=[job.argv[0], "-c", "import sys; print(sys.argv)", "x"]))
    assert outcome.stdout.content == b"['-c', 'x']\n"
    outcome = await pool.run(replace(job, argv=[job.argv[0], "-m", "json.tool"], stdin=b'{"a":1}'))
    assert outcome.stdout.content == b'{\n    "a": 1\n}\n'


async def test_processes_and_semaphores_of_the_language_work(pool: Pool) -> None:
    source = """
import multiprocessing, threading

def square(x):
    return x * x

if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(5)))
"""
    outcome = await pool.run(python(source, LEVEL))
    assert outcome.stdout.content == b"[0, 1, 4, 9, 16]\n", outcome


async def test_a_folder_of_the_host_is_shown_where_it_is_wanted(pool: Pool, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    (tmp_path / "built").write_text("built")
    job = shell("cat /program/built; echo x 2>/dev/null >/program/new || echo read-only")
    outcome = await pool.run(replace(job, mounts={"/program": tmp_path}))
    assert outcome.stdout.content == b"builtread-only\n"
    assert not (tmp_path / "new").exists()


async def test_a_folder_that_was_replaced_is_shown_as_it_is_now(pool: Pool, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    built = tmp_path / "built"
    for content in (b"one", b"one", b"one", b"two", b"two"):  # jobs that are alike share what they see of the host
        if not built.exists() or (built / "x").read_bytes() != content:
            shutil.rmtree(built, ignore_errors=True)
            built.mkdir()
            (built / "x").write_bytes(content)
        outcome = await pool.run(replace(shell("cat /program/x"), mounts={"/program": built}))
        assert outcome.stdout.content == content, outcome


async def test_files_come_back(pool: Pool) -> None:
    job = shell("mkdir out; echo one >out/a.txt; echo two >b; chmod +x b", return_files=["out/*.txt", "b", "absent"])
    outcome = await pool.run(job)
    assert outcome.files == (File("b", b"two\n", True), File("out/a.txt", b"one\n", False))


async def test_a_program_that_is_not_there_ends_as_a_shell_says_it(pool: Pool) -> None:
    outcome = await pool.run(replace(shell(""), argv=["./absent"]))
    assert (outcome.verdict, outcome.exit_code) == (Verdict.RUNTIME_ERROR, 127)


async def test_files_that_do_not_fit_are_over_the_limit(pool: Pool) -> None:
    big = File("big", bytes(2 << 20))
    for limits in (Limits(disk_bytes=1 << 20), Limits(file_bytes=1 << 20)):
        outcome = await pool.run(python("print(1)", LEVEL, files=(big,), limits=limits))
        assert outcome.verdict is Verdict.DISK_LIMIT, outcome


async def test_streams_can_be_opened_by_name(pool: Pool) -> None:
    job = shell("cat /dev/stdin >/dev/stdout; echo oops >/dev/stderr", stdin=b"through")
    outcome = await pool.run(job)
    assert (outcome.stdout.content, outcome.stderr.content) == (b"through", b"oops\n")


async def test_usage_is_that_of_the_tree(pool: Pool) -> None:
    source = """
import os, time

for _ in range(2):
    if os.fork() == 0:
        block = b"x" * (20 << 20)
        while time.process_time() < 0.2:
            pass
        os._exit(0)
os.wait(); os.wait()
"""
    outcome = await pool.run(python(source, LEVEL))
    assert 0.35 < outcome.cpu_s < 1.0
    assert outcome.wall_s > 0.15
    assert outcome.peak_memory_bytes > 20 << 20


async def test_one_runs_one_waits_and_more_are_told_when_to_come_again(pool: Pool) -> None:
    await _idle(pool)
    first = asyncio.create_task(pool.run(python("import time; time.sleep(1); print(1)", LEVEL)))
    await asyncio.sleep(0)
    second = asyncio.create_task(pool.run(python("print(2)", LEVEL)))
    await asyncio.sleep(0)
    assert (pool.num_busy, pool.num_waiting) == (1, 1)
    with pytest.raises(BusyError, match="try again in") as refused:
        await pool.run(python("print(3)", LEVEL))
    assert refused.value.retry_after_s > 0
    assert [(await task).stdout.content for task in (first, second)] == [b"1\n", b"2\n"]


async def test_a_caller_that_leaves_takes_its_job_along(pool: Pool) -> None:
    await _idle(pool)
    forever = asyncio.create_task(pool.run(python("while True: pass", LEVEL)))
    waiting = asyncio.create_task(pool.run(python("print(1)", LEVEL)))
    await asyncio.sleep(0.2)
    forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forever
    assert (await waiting).stdout.content == b"1\n"


async def test_a_caller_that_leaves_the_queue_leaves_its_place(pool: Pool) -> None:
    await _idle(pool)
    first = asyncio.create_task(pool.run(python("import time; time.sleep(0.5)", LEVEL)))
    await asyncio.sleep(0)
    second = asyncio.create_task(pool.run(python("", LEVEL)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert pool.num_waiting == 0
    assert (await first).verdict is Verdict.OK


async def test_a_conversation_goes_back_and_forth(pool: Pool) -> None:
    async with pool.open(python("while True: print(eval(input()), flush=True)", LEVEL)) as conversation:
        for question, answer in ((b"6 * 7\n", b"42\n"), (b"'a' * 100000\n", b"a" * 100000 + b"\n")):
            await conversation.send(question)
            assert await conversation.receive_line() == answer
        outcome = await conversation.end()
    assert outcome.verdict is Verdict.OK


async def test_a_conversation_shows_the_programs_end(pool: Pool) -> None:
    async with pool.open(python("print('bye', end='')\nraise SystemExit(3)", LEVEL)) as conversation:
        assert await conversation.receive_line() == b"bye"
        assert await conversation.receive_line() == b""
        with pytest.raises(BrokenPipeError):
            await conversation.send(b"x" * (1 << 20))
        outcome = await conversation.end()
    assert (outcome.verdict, outcome.exit_code) == (Verdict.RUNTIME_ERROR, 3)


async def test_a_program_ahead_of_its_reader_waits(pool: Pool) -> None:
    source = "for number in range(20000): print('x' * 100, number)"
    job = python(source, LEVEL, limits=Limits(output_bytes=1 << 16))
    async with pool.open(job) as conversation:
        for number in range(20000):
            assert await conversation.receive_line() == b"x" * 100 + f" {number}\n".encode()
        assert await conversation.receive_line() == b""
        assert (await conversation.end()).verdict is Verdict.OK


async def test_a_line_without_end_is_an_error(pool: Pool) -> None:
    job = python("while True: print('x' * 1000, end='')", LEVEL, limits=Limits(output_bytes=1 << 16))
    async with pool.open(job) as conversation:
        with pytest.raises(ValueError, match="a line of more than 65536 bytes"):
            await conversation.receive_line()
        assert (await conversation.end()).verdict is Verdict.OUTPUT_LIMIT


async def test_a_program_can_be_interrupted(pool: Pool) -> None:
    source = """
import time

try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
input()
"""
    async with pool.open(python(source, LEVEL)) as conversation:
        assert await conversation.receive_line() == b"ready\n"
        await conversation.interrupt()
        assert await conversation.receive_line() == b"interrupted\n"


async def test_a_conversation_is_under_its_limits(pool: Pool) -> None:
    async with pool.open(python("input()", LEVEL, limits=Limits(wall_s=0.3))) as conversation:
        assert await conversation.receive_line() == b""
        assert (await conversation.end()).verdict is Verdict.TIME_LIMIT


async def test_a_keeper_that_dies_is_the_sandboxs_fault_and_is_replaced(pool: Pool) -> None:
    await _idle(pool)
    job = asyncio.create_task(pool.run(python("import time; time.sleep(60)", LEVEL)))
    await asyncio.sleep(0.2)
    keeper = next(child for child in psutil.Process().children() if "keeper" in " ".join(child.cmdline()))
    os.kill(keeper.pid, signal.SIGKILL)
    outcome = await job
    assert outcome.verdict is Verdict.INFRASTRUCTURE_ERROR
    assert outcome.verdict.is_the_sandboxs_fault
    assert (await pool.run(python("print(1)", LEVEL))).stdout.content == b"1\n"


async def test_two_pools_keep_out_of_each_others_way(pool: Pool) -> None:
    other = await open_pool(JailSettings(levels=LEVEL, num_slots=1, python=interpreter(LEVEL)))
    source = "import os, time; time.sleep(0.3); print(os.getuid())"
    outcomes = await asyncio.gather(pool.run(python(source, LEVEL)), other.run(python(source, LEVEL)))
    await other.close()
    assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, Verdict.OK]
    if os.getuid() == 0:
        assert outcomes[0].stdout.content != outcomes[1].stdout.content
    assert (await pool.run(python("print(1)", LEVEL))).stdout.content == b"1\n"


async def test_the_level_in_force_is_told(pool: Pool) -> None:
    assert pool.isolation.level == LEVEL
    assert {"pid", "mount", "network", "seccomp", "no-new-privileges", "read-only-root"} <= set(
        pool.isolation.mechanisms
    )


async def test_a_level_that_cannot_be_had_is_refused_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(MissingDependencyError, match=r"namespaces: the keeper .*PERILUNE_SANDBOX_LEVELS"):
        await open_pool(JailSettings(levels=LEVEL, num_slots=1, python=broken))


async def test_the_weakest_level_runs_where_it_is_asked_for_by_name() -> None:
    weakest = await open_pool(JailSettings(levels="rlimits", num_slots=1, python=interpreter("rlimits")))
    assert weakest.isolation.level == "rlimits"
    assert set(weakest.unavailable_levels) == {"gvisor", "namespaces", "user-namespaces", "landlock"}
    source = "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass\nprint(open('main.py').read()[:6])"
    outcome = await weakest.run(python(source, "rlimits"))
    await weakest.close()
    assert (outcome.verdict, outcome.stdout.content) == (Verdict.OK, b"import\n")
    assert readable(interpreter("rlimits"))
