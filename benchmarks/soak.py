"""The sandbox over many jobs in a row, hostile ones among them: what is left behind, and whether all were right.

    python -m benchmarks.soak [--jobs 10000] [--json FILE]

Every tenth job is a program of tests/cases/hostile, with the verdict that its case names; the others read, compute and
print. All come through the API, more at a time than there are slots. Processes, mounts, control groups, files,
descriptors and memory are counted while the service is idle: after the first tenth, and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from benchmarks.report import Figure, report
from benchmarks.sandbox import running_service
from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.client.sandbox import AsyncSandboxClient
from services.sandbox.config import JailSettings

_CASES = Path(__file__).parents[1] / "tests" / "cases" / "hostile"
# Those that need no other job before them, end within a second or two, and ask the API for nothing that it refuses.
_HOSTILE = (
    *("abort", "closed_streams", "crash", "daemon", "daemon_swarm", "descriptors", "environment", "forbidden_calls"),
    *(
        "fork_bomb_quiet",
        "inode_bomb",
        "kill_itself",
        "memory_bomb_at_once",
        "memory_bomb_tree",
        "network",
        "odd_output",
    ),
    *("one_big_file", "output_flood", "output_from_orphans", "signals"),
    *("sparse_files", "stdout_closed_early", "unix_sockets", "zombie_bomb"),
)
_CALLERS = 6
_ATTEMPTS = 3  # a failure of the sandbox itself says nothing about a program


@dataclass(frozen=True)
class Remains:
    """Resources of an idle service. Memory in MiB: the service's own, and all of its keepers' together."""

    processes: int
    mounts: int
    cgroups: int
    files: int
    descriptors: int
    service_mib: float
    keepers_mib: float


@dataclass(frozen=True)
class Soaked:
    """`wrong` and `retried` count jobs by what they were: a case's name, or "ordinary"."""

    num_jobs: int
    jobs_per_s: float
    wrong: Counter[str]
    retried: Counter[str]
    before: Remains
    after: Remains


async def soak(num_jobs: int, seed: int = 0) -> Soaked:
    """Starts a service and has it run the jobs."""
    with tempfile.TemporaryDirectory() as folder:
        async with running_service(Path(folder)) as address, AsyncSandboxClient(address) as sandbox:
            service = _service_of(Path(folder) / "ready.json")
            run = _Run(sandbox, random.Random(seed))
            await run.jobs(num_jobs // 10)
            before = await _remains(service, sandbox)
            began = time.perf_counter()
            await run.jobs(num_jobs - num_jobs // 10)
            rate = (num_jobs - num_jobs // 10) / (time.perf_counter() - began)
            return Soaked(num_jobs, rate, run.wrong, run.retried, before, await _remains(service, sandbox))


class _Run:
    def __init__(self, sandbox: AsyncSandboxClient, chance: random.Random) -> None:
        self._sandbox = sandbox
        self._chance = chance
        self._cases = {name: tomllib.loads((_CASES / name / "case.toml").read_text("utf-8")) for name in _HOSTILE}
        self.wrong: Counter[str] = Counter()
        self.retried: Counter[str] = Counter()

    async def jobs(self, number: int) -> None:
        left = iter(range(number))

        async def caller() -> None:
            for index in left:
                await self._job("ordinary" if index % 10 else self._chance.choice(_HOSTILE))

        await asyncio.gather(*(caller() for _ in range(_CALLERS)))

    async def _job(self, name: str) -> None:
        for _ in range(_ATTEMPTS):
            verdict, right = await (self._ordinary() if name == "ordinary" else self._hostile(name))
            if verdict != "INFRASTRUCTURE_ERROR":
                break
            self.retried[name] += 1
        if not right:
            self.wrong[name] += 1
            print(f"{name}: {verdict}")

    async def _ordinary(self) -> tuple[str, bool]:
        numbers = [self._chance.randrange(1000) for _ in range(5)]
        source = "print(sum(map(int, input().split())))"
        answer = await self._sandbox.run("python", source, stdin=" ".join(map(str, numbers)))
        return _name(answer), answer.execution.stdout.content == b"%d\n" % sum(numbers)

    async def _hostile(self, name: str) -> tuple[str, bool]:
        case, (program,) = self._cases[name], (_CASES / name).glob("main.*")
        answer = await self._sandbox.run(
            {".py": "python", ".sh": "bash"}[program.suffix],
            program.read_text("utf-8"),
            stdin=b"x" * case.get("stdin_size", 0),
            limits=api.Limits(**{"cpu_s": 10.0, "wall_s": 60.0, **case.get("limits", {})}),
            return_files=case.get("return_files", ()),
        )
        return _name(answer), _name(answer) in case["verdicts"]


def _name(answer: api.RunResponse) -> str:
    return api.Verdict.Name(answer.verdict).removeprefix("VERDICT_")


def _service_of(ready_file: Path) -> psutil.Process:
    return psutil.Process(json.loads(ready_file.read_text("utf-8"))["pid"])


async def _remains(service: psutil.Process, sandbox: AsyncSandboxClient) -> Remains:
    while (await sandbox.status()).num_busy:
        await asyncio.sleep(0.05)
    family = service.children(recursive=True)
    # The process that will be the next program, a session of its own, is new with every job.
    keepers = [process for process in family if os.getsid(process.pid) != process.pid]
    return Remains(
        processes=len(family),
        mounts=sum(_num_mounts(process.pid) for process in keepers),
        cgroups=sum(f"perilune-sandbox-{service.pid}-" in path for path, *_ in os.walk("/sys/fs/cgroup")),
        files=_num_files(),
        descriptors=service.num_fds() + sum(process.num_fds() for process in keepers),
        service_mib=_mib(service),
        keepers_mib=sum(map(_mib, keepers)),
    )


def _mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss / (1 << 20))


def _num_mounts(pid: int) -> int:
    """Those that only a job makes; others on this machine make and remove theirs meanwhile."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text("utf-8").splitlines()
    return sum(line.split(" - ")[1].startswith(("tmpfs root ", "tmpfs work ")) for line in lines)


def _num_files() -> int:
    """Files in the folders that every user may write to, of the uids that jobs run under."""
    first = JailSettings().first_uid
    paths = [*Path("/tmp").iterdir(), *Path("/dev/shm").iterdir(), *Path("/var/tmp").iterdir()]
    return sum(first <= _owner(path) < first + 1000 for path in paths)


def _owner(path: Path) -> int:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:
        return 0


def figures_of(soaked: Soaked) -> dict[str, Figure]:
    figures = {
        "jobs": Figure(soaked.num_jobs, "jobs"),
        "jobs a second": Figure(soaked.jobs_per_s, "jobs/s"),
        "wrong verdicts or answers": Figure(soaked.wrong.total(), "jobs"),
        "tried again after a failure of the sandbox": Figure(soaked.retried.total(), "times"),
    }
    for field in fields(Remains):
        before, after = getattr(soaked.before, field.name), getattr(soaked.after, field.name)
        name = field.name.removesuffix("_mib")
        unit = "MiB more" if name != field.name else f"more than the {before} before"
        figures[f"left: {name}" if name == field.name else f"memory of the {name}"] = Figure(after - before, unit)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    soaked = asyncio.run(soak(options.jobs))
    report("Many jobs in a row, hostile ones among them", figures_of(soaked), options.json)


if __name__ == "__main__":
    main()
