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
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from perilune.errors import (
    InvalidInputError,
    NotFoundError,
    PeriluneError,
    SettingsError,
    StateError,
    UnavailableError,
)
from perilune.local.cards import TURNS, CardPlan, Wanted, ask_machine, plan_cards
from perilune.local.children import (
    KEEP_FREED_MEMORY,
    Child,
    complaint,
    ending_with_parent,
    failed_to_write,
    log_tail,
    threads_of,
)
from perilune.local.home import (
    LOOPBACK,
    SERVICE_PATIENCE_S,
    STOP_PATIENCE_S,
    exclusive_home,
    find_nats_server,
    free_ports,
    num_cores,
    page_address,
    page_url,
    services_root,
    with_root,
    write_nats_config,
)
from perilune.local.spare import Spare
from perilune.local.supervision import (
    WRONG_SETTINGS,
    inherited,
    num_deaths_without_work,
    pause_s,
    reason_to_give_up,
    restart_notice,
)
from perilune.models.memory import Load
from perilune.recipe.needs import Needs, is_address

T = TypeVar("T")

NOTHING_MORE = Needs()
NATS_PATIENCE_S = 20.0
SPARE_EVERY_S = 1.0
ROOM_EVERY_S = 2.0
ROOM_BYTES = 48 << 20  # with which a full disk has room again
OUTAGE_PATIENCE_S = "600"  # of a service that starts while the bus or the database is away
FLEET = "fleet"  # those who subscribe to weights
Route = Callable[[str, str, str], str]
"""Of a client, a server and the server's address: the address by which that client reaches it."""


def straight(client: str, server: str, address: str) -> str:
    """Returns the server's own address: nothing lies between."""
    return address


class LocalCluster:
    """The running services of one home; made by `local_cluster`."""

    def __init__(
        self,
        home: Path,
        lock: int,
        page: str,
        cards: CardPlan,
        num_rewards: int,
        notify: Callable[[str], None],
        num_trainer_ranks: int = 1,
        route: Route = straight,
    ):
        num_rollouts = cards.num_rollouts
        self._route = route
        nats_port, master_port, sandbox_port, teacher_port = free_ports(4)
        elsewhere = os.environ.get("PERILUNE_SANDBOX_ADDRESS")
        teacher_elsewhere = os.environ.get("PERILUNE_TEACHER_ADDRESS")
        self.home = home
        self.nats_url = f"nats://{LOOPBACK}:{nats_port}"
        self.master_address = f"{LOOPBACK}:{master_port}"
        self.sandbox_address = elsewhere or f"{LOOPBACK}:{sandbox_port}"
        self.teacher_address = teacher_elsewhere or f"{LOOPBACK}:{teacher_port}"
        self.page = page_url(page)
        self.cards = cards
        self._turns = turns_folder(home) if cards.takes_turns else None
        self._lock = lock
        self._notify = notify
        self._root = services_root()
        self._failed = asyncio.Event()
        self._failure: PeriluneError = UnavailableError()
        self.failure = ""  # in a line, once a child was given up
        self._stopping = False
        self._supervisors: dict[asyncio.Task[None], Child] = {}
        self._keeping: list[asyncio.Task[None]] = []
        config = write_nats_config(home, f"{LOOPBACK}:{nats_port}")
        nats = [str(find_nats_server()), "-c", str(config)]
        self._nats = Child("nats", nats, {}, self._log_of("nats"), watches_parent=False)
        self._master = self._service("master", "master", 1, self.master_address)
        self._master.env["PERILUNE_HTTP_LISTEN"] = page
        self._rewards = [self._service("reward", f"reward-{i}", num_rollouts) for i in range(1, num_rewards + 1)]
        self._workers = [
            self._trainer(num_trainer_ranks),
            *(self._service("rollout", f"rollout-{i}", num_rollouts) for i in range(1, num_rollouts + 1)),
            *self._rewards,
        ]
        for child in self._workers:
            child.env |= cards.env.get(child.name, {})
            if self._turns and child not in self._rewards:
                child.env[TURNS] = str(self._turns)
        trainer = self._workers[0]
        self._spare = Spare(inherited(os.environ, "trainer") | trainer.env, lock)
        self._plugins: list[Child] = []
        self._sandbox = self._service("sandbox", "sandbox", num_rollouts, self.sandbox_address)
        self._starts_sandbox = not elsewhere
        self._teacher = self._service("teacher", "teacher", num_rollouts, self.teacher_address)
        self._teacher.argv = [sys.executable, "-m", "services.rollout.standalone"]
        self._teacher.env["PERILUNE_HTTP_LISTEN"] = f"{LOOPBACK}:0"
        self._starts_teacher = not teacher_elsewhere

    @property
    def log_dir(self) -> Path:
        """The folder of the children's logs."""
        return self.home / "logs"

    @property
    def pids(self) -> dict[str, int]:
        """The children that live, by name."""
        return {c.name: c.process.pid for c in self._children if c.process and c.process.returncode is None}

    @property
    def _children(self) -> list[Child]:
        return [self._nats, self._master, *self._workers, self._sandbox, self._teacher, *self._plugins]

    @contextlib.asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """Kills a child at once, and starts it again at the context's end: a death on purpose, which is not counted
        among its own. NotFoundError if no child of that name lives."""
        child = next((child for child in self._children if child.name == name), None)
        if child is None or child.process is None or child.process.returncode is not None:
            raise NotFoundError(f"no {name!r} lives in {self.home}; there are {', '.join(self.pids)}")
        child.may_start.clear()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        try:
            await child.process.wait()
            yield
        finally:
            child.may_start.set()

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
        if self._turns:
            make_turns_folder(self._turns)
        self._supervise(self._nats)
        await self.run(_until_listening(self.nats_url.rpartition(":")[2], NATS_PATIENCE_S))
        for child in [self._master, *self._workers]:
            if child not in self._rewards:
                self._supervise(child)
        if needs is not None:
            self.provide(needs)
        # Not on cards: whose device a process computes on is settled when it starts.
        if not self.cards.env and os.environ.get("PERILUNE_SPARE") != "0":
            self._keeping.append(asyncio.create_task(self._keep_spare()))
        self._keeping.append(asyncio.create_task(self._keep_room()))
        await self.run(self._until_ready(self._master, SERVICE_PATIENCE_S))

    async def _keep_spare(self) -> None:
        """Keeps a spare process, which is made when no service is still starting: it would take their time."""
        while True:
            await asyncio.sleep(SPARE_EVERY_S)
            if all(worker.ready_file and worker.ready_file.exists() for worker in self._workers):
                await self._spare.start()

    async def _keep_room(self) -> None:
        """Says when the bus finds its disk full, and starts it again when there is room: its streams stay broken."""
        is_named = False
        while True:
            await asyncio.sleep(ROOM_EVERY_S)
            if not failed_to_write(self._nats.log, self._nats.log_start):
                continue
            free = shutil.disk_usage(self.home).free
            if free < ROOM_BYTES and not is_named:
                self._notify(
                    f"the disk of {self.home} is full ({free >> 20} MiB are free): runs wait until there is room"
                )
                is_named = True
            elif free >= ROOM_BYTES:
                self._notify("the disk was full, and there is room again; starting the bus again")
                is_named = False
                with contextlib.suppress(NotFoundError):  # it is being started
                    async with self.without("nats"):
                        pass

    def provide(self, needs: Needs) -> None:
        """Starts the reward workers, and what else a run needs; once. Where a variable of the user names a service
        (PERILUNE_SANDBOX_ADDRESS, PERILUNE_TEACHER_ADDRESS, PERILUNE_PLUGINS), that is taken and none is started.
        """
        if needs.sandbox and self._starts_sandbox and self._sandbox not in self._supervisors.values():
            self._supervise(self._sandbox)
        if needs.teacher and self._starts_teacher and self._teacher not in self._supervisors.values():
            self._teacher.env["PERILUNE_MODEL"] = needs.teacher
            self._supervise(self._teacher)
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
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        await self._spare.stop()
        for child in self._children:
            child.may_start.set()
        services = [task for task, child in self._supervisors.items() if child is not self._nats]
        for tasks in (services, list(set(self._supervisors) - set(services))):
            self._signal(tasks, signal.SIGTERM)
            _, late = await asyncio.wait(tasks, timeout=STOP_PATIENCE_S) if tasks else (set(), set())
            self._signal(list(late), signal.SIGKILL)
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._turns:
            shutil.rmtree(self._turns, ignore_errors=True)  # versions lie there, in memory

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
            "PERILUNE_NATS_URL": "nats://" + self._route(name, "nats", self.nats_url.removeprefix("nats://")),
            "PERILUNE_MASTER_ADDRESS": self._route(name, "master", self.master_address),
            "PERILUNE_SANDBOX_ADDRESS": self._route(name, "sandbox", self.sandbox_address),
            "PERILUNE_TEACHER_ADDRESS": self.teacher_address,
            "PERILUNE_HOME": str(self.home),
            "PERILUNE_READY_FILE": str(ready_file),
            "PERILUNE_EXIT_WITH_PARENT": "1",
            "PERILUNE_PATIENCE_S": os.environ.get("PERILUNE_PATIENCE_S", OUTAGE_PATIENCE_S),
            "PERILUNE_WORKER_ID": name.partition("-")[2] or "1",
            "PYTHONPATH": with_root(self._root),
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
        if self._route is not straight and num_ranks == 1:
            listen = f"{LOOPBACK}:{free_ports(1)[0]}"
            child.env |= {"PERILUNE_LISTEN": listen, "PERILUNE_ADVERTISE": self._route(FLEET, "trainer", listen)}
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
            if not child.may_start.is_set():
                await child.may_start.wait()
                continue
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
        """Tests whether the life that just ended finished some work. Those who serve the others work when the others
        do."""
        workers = [child] if child in self._workers else self._workers
        files = [worker.ready_file.with_suffix(".work") for worker in workers if worker.ready_file]
        return any(file.exists() and file.stat().st_mtime_ns > child.started_ns for file in files)

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        child.log.parent.mkdir(parents=True, exist_ok=True)
        if child.ready_file:
            child.ready_file.unlink(missing_ok=True)
        child.started_ns = time.time_ns()
        env = inherited(os.environ, child.service) | child.env
        child.num_lives += 1
        if child.num_lives > 1 and "PERILUNE_WORKER_ID" in env:  # a new worker, not an old one that stutters
            env["PERILUNE_WORKER_ID"] += f".{child.num_lives}"
        child.log.touch()
        child.log_start = child.log.stat().st_size
        is_plain = child.argv[1:] == ["-m", f"services.{child.service}"]
        process = self._spare.become(child.service, env, child.log) if child.num_lives > 1 and is_plain else None
        return process or await self._start_process(child, env)

    async def _start_process(self, child: Child, env: Mapping[str, str]) -> asyncio.subprocess.Process:
        with child.log.open("ab") as log:
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
            self._failure = SettingsError(f"{child.name} {reason}: {complaint(child.log, child.log_start)}")
        else:
            tail = log_tail(child.log, child.log_start)
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


def turns_folder(home: Path) -> Path:
    """The folder in shared memory by which a home's trainer and engine take turns."""
    return Path("/dev/shm") / f"perilune-{hashlib.sha256(str(home).encode()).hexdigest()[:16]}"


def make_turns_folder(folder: Path) -> None:
    """Makes the folder for this user alone. StateError if another user has made one of that name."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise StateError(f"{folder} belongs to another user; set {TURNS} to a folder in shared memory of your own")


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
    load: Load | None = None,
    route: Route = straight,
    opening: Callable[[], AbstractAsyncContextManager[None]] = contextlib.nullcontext,
) -> AsyncIterator[LocalCluster]:
    """Runs NATS, a master, a trainer, rollout and reward workers on this machine for as long as the context is open.

    Args:
        home: the folder for runs, logs, the database and the bus's store; made if need be.
        num_rollouts: rollout workers; if not given, one for each card that the trainer leaves, or without cards one
            for each of the first two cores.
        num_rewards: reward workers.
        notify: called with a sentence when a child died and is started again.
        num_trainer_ranks: processes that the policy is sharded over.
        page: host and port of the web page; port 7080 of the loopback interface, or a free one, if not given.
        needs: what the runs need beside; None if that is not known yet: reward workers then wait for `provide`.
        load: what the run computes with, for the memory of cards; None if that is not known.
        route: what lies between the services, for example a network that can be cut.
        opening: opens it, when every route is known.

    Raises:
        StateError: another cluster works in this home.
        MissingDependencyError: no nats-server, or no services.
        InvalidInputError: the page's address cannot be used.
        SettingsError: more ranks than cards, or no card where PERILUNE_DEVICE wants one.
        InvalidInputError, UnavailableError: a service does not come up; the message ends with its log.
    """
    home = home.resolve()
    with exclusive_home(home) as lock, page_address(page) as address:
        wanted = Wanted.of_environment(os.environ, num_trainer_ranks, num_rollouts)
        cards = plan_cards(await asyncio.to_thread(ask_machine), wanted, load, min(2, num_cores()))
        cluster = LocalCluster(home, lock, address, cards, num_rewards, notify, num_trainer_ranks, route)
        async with opening():
            try:
                await cluster.start(needs)
                yield cluster
            finally:
                await cluster.stop()


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
