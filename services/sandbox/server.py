"""The sandbox service: SandboxService for anyone. It holds no credentials and opens no bus and no database."""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.api.sandbox.v1.sandbox_pb2_grpc import add_SandboxServiceServicer_to_server
from perilune.runtime.http import serve_http
from perilune.runtime.service import Service, until_stopping
from services.sandbox import harness
from services.sandbox.builds import Builds
from services.sandbox.config import SandboxSettings
from services.sandbox.images.store import ImageStore
from services.sandbox.images.toolchains import Images
from services.sandbox.jail.levels import open_pool
from services.sandbox.job import Jail
from services.sandbox.languages import detect
from services.sandbox.servicer import SandboxServicer
from services.sandbox.sessions import Sessions

_SERVICE = api.DESCRIPTOR.services_by_name["SandboxService"]
_BUILDS = Path("/var/tmp")


async def run(service: Service) -> None:
    """Answers RPCs until the service is asked to stop."""
    settings = service.settings
    assert isinstance(settings, SandboxSettings)
    async with AsyncExitStack() as stack:
        servicer = await stack.enter_async_context(open_servicer(settings))
        add_SandboxServiceServicer_to_server(servicer, service.server)
        await service.listen([_SERVICE])
        async with serve_http(service, {_SERVICE: servicer}):
            await service.ready()
            await until_stopping(service)
        await service.server.stop(grace=0.0)  # before the jail closes under the calls


@contextlib.asynccontextmanager
async def open_servicer(settings: SandboxSettings) -> AsyncIterator[SandboxServicer]:
    """Builds the service's parts, and closes them at the end.

    MissingDependencyError: this host does not allow an isolation that the settings accept.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_builds_folder())
        compileall.compile_dir(harness.FOLDER, quiet=2)  # once here, and not in every job; where it can, it helps
        toolchains = await detect(settings.tools, _versions_file())
        # A program and its tests take a slot each, at the same time.
        num_slots = max(2, settings.jail.num_slots)
        pool = await open_pool(settings.jail.model_copy(update={"num_slots": num_slots}))
        stack.push_async_callback(pool.close)
        images = Images(ImageStore(settings.jail.images), pool)
        builds = Builds(pool, toolchains, images, folder, settings.builds_mb << 20)
        sessions = Sessions(lambda: _session_slot(settings), builds, settings.max_sessions, settings.session_life_s)
        stack.push_async_callback(sessions.close_all)
        yield SandboxServicer(settings, pool, builds, sessions)


@contextlib.contextmanager
def _builds_folder() -> Iterator[Path]:
    """A folder for what is built: not under /tmp, where a job sees its own. What a killed service left is removed."""
    prefix = "perilune-builds-"
    for abandoned in _BUILDS.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), (abandoned / "lock").open() as lock:  # another user's, or one in use
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(abandoned)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=_BUILDS) as name, (Path(name) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path(name).chmod(0o711)  # programs that were built run under other uids
        yield Path(name)


def _versions_file() -> Path:
    """The cache of toolchains' versions between starts; asking all of them takes a second."""
    return Path.home() / ".cache" / "perilune" / "toolchains.json"


@contextlib.asynccontextmanager
async def _session_slot(settings: SandboxSettings) -> AsyncIterator[Jail]:
    """Opens a session's slot: it stays for long, and must not take one from the jobs."""
    pool = await open_pool(settings.jail.model_copy(update={"num_slots": 1, "max_waiting": 0}))
    try:
        yield pool
    finally:
        await pool.close()
