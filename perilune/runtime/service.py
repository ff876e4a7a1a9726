"""The shell that every service shares: settings, logging, a gRPC server with health and reflection, a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import BeforeValidator, Field

from perilune import logs
from perilune.channel import MAX_CALLS, MAX_MESSAGE_BYTES, Credentials, read_pem, server_options
from perilune.channel import open_channel as open_channel  # noqa: PLC0414
from perilune.errors import InvalidInputError, PeriluneError, SettingsError, UnavailableError
from perilune.errors import rpc_errors as rpc_errors  # noqa: PLC0414
from perilune.runtime import telemetry
from perilune.runtime.auth import AuthInterceptor, Gate, read_tokens
from perilune.runtime.unreadable import DecodingInterceptor

logger = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_S = 2.0
TOKENS_EVERY_S = 2.0  # between two looks at the tokens file
MAX_DESCRIPTORS = 65_536
NOTE_WORK_EVERY_S = 1.0


class ServiceSettings(Credentials):
    """Settings of every service: PERILUNE_LISTEN, PERILUNE_NATS_URL, and so on."""

    listen: str = "127.0.0.1:0"  # port 0: any free one
    http_listen: str | None = None  # HTTP/JSON beside gRPC, for the services that have it
    http_hosts: tuple[str, ...] = ()  # names of this service that a site could have, where callers are not asked
    advertise: str | None = None  # how others reach this service, where that differs from `listen`
    nats_url: str = "nats://127.0.0.1:4222"
    master_address: str = "127.0.0.1:7040"
    blobs: str = ""  # a folder or a URL for what is too large for the bus; `blobs` in the home if not given
    home: Path = Path("runs")  # where runs, checkpoints and the embedded database lie
    metrics_port: Annotated[int, Field(gt=0, lt=65536)] | None = None  # a page for Prometheus, which asks for no token
    metrics_host: str | None = None  # where that page is served; where `listen` is, if not given
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"
    ready_file: Path | None = None  # written when the service answers: {"address", "http", "pid", "parent"}
    exit_with_parent: bool = False  # end when the process that started this one is gone
    tokens_file: Path | None = None  # who may call, and how much (`perilune.runtime.auth`)
    tls_client_ca: Path | None = None  # callers must show a certificate of this authority (mTLS)
    patience_s: float = 0.0  # to wait at the start for a NATS server or a database that is not there yet
    # One request of gRPC or HTTP, in MiB; a larger one is refused.
    max_request_mb: Annotated[int, Field(gt=0, le=MAX_MESSAGE_BYTES >> 20)] = MAX_MESSAGE_BYTES >> 20
    allow_unauthenticated: bool = False  # listen beyond loopback although nothing asks callers who they are
    hybrid: Path | None = (
        None  # a folder in shared memory: trainer and engine of one pod take turns (`perilune.weights.shared_memory`)
    )
    worker_id: str = Field(default_factory=lambda: uuid4().hex[:8])

    @property
    def blob_url(self) -> str:
        """Returns where the blob store is; one for all services that share a bus."""
        return self.blobs or str(self.home.absolute() / "blobs")


class Service:
    """One running service: its settings, its gRPC server, and the event that tells it to stop."""

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        self.name = name
        self.settings = settings
        self.id = f"{name}-{settings.worker_id}"
        self.gate = _gate(settings)
        interceptors: list[grpc.aio.ServerInterceptor] = [AuthInterceptor(self.gate)] if self.gate else []
        interceptors.append(DecodingInterceptor())  # behind the gate: a stranger learns nothing
        options = server_options(settings.max_request_mb << 20)
        self.server = grpc.aio.server(interceptors=interceptors, options=options, maximum_concurrent_rpcs=MAX_CALLS)
        self.stopping = asyncio.Event()
        self.address = ""
        self.http_address = ""
        self.parent = os.getppid() if settings.exit_with_parent else None  # who takes the service along
        self._noted_work_at = -math.inf
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]

    async def listen(self, services: Sequence[ServiceDescriptor]) -> None:
        """Opens the port for the servicers that were added to `server`; `address` is known afterwards.

        InvalidInputError if the port is taken, or open to others without authentication.
        """
        host = self.settings.listen.rpartition(":")[0]
        self.check_exposure(self.settings.listen)
        # The library's servicer says SERVING from its birth on; we are not, until `ready`.
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)  # type: ignore[no-untyped-call]
        names = [service.full_name for service in services] + [health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self.server)  # type: ignore[no-untyped-call]
        try:
            bound = self._bind(self.settings.listen)
        except RuntimeError as error:
            raise InvalidInputError(
                f"{self.name} cannot listen on {self.settings.listen}: the port is in use or not ours; "
                "choose another with --listen (port 0 takes any free one)"
            ) from error
        self.address = self.settings.advertise or f"{reachable_name(host)}:{bound}"
        await self.server.start()

    def check_exposure(self, listen: str) -> None:
        """InvalidInputError if others than this machine could call without authentication."""
        if is_loopback(listen.rpartition(":")[0]) or self.settings.allow_unauthenticated:
            return
        if self.gate is None:
            raise InvalidInputError(
                f"{self.name} would listen on {listen} with no authentication; give PERILUNE_TOKENS_FILE "
                "(`perilune token` makes one) or PERILUNE_TLS_CLIENT_CA, listen on 127.0.0.1, "
                "or accept it with PERILUNE_ALLOW_UNAUTHENTICATED=1"
            )
        if self.settings.tls_cert is None:
            logger.warning(
                "tokens travel in plain text to %s: give PERILUNE_TLS_CERT and _KEY, or end TLS before", listen
            )

    def metrics_host(self) -> str:
        """Returns where the Prometheus page is served. InvalidInputError if others than this machine could read it
        although this service asks who calls, and nothing says in words that they may."""
        settings, host = self.settings, self.settings.listen.rpartition(":")[0].strip("[]")
        if settings.metrics_host is not None:
            return settings.metrics_host
        if settings.metrics_port and not (is_loopback(host) or settings.allow_unauthenticated):
            raise InvalidInputError(
                f"{self.name} would serve its metrics on {host} to anyone: say where with PERILUNE_METRICS_HOST "
                "(127.0.0.1, or 0.0.0.0 for every interface)"
            )
        return host

    def _bind(self, listen: str) -> int:
        settings = self.settings
        key, cert, client_ca = (
            read_pem(path) for path in (settings.tls_key, settings.tls_cert, settings.tls_client_ca)
        )
        if not (key and cert):
            return self.server.add_insecure_port(listen)
        credentials = grpc.ssl_server_credentials([(key, cert)], client_ca, require_client_auth=client_ca is not None)
        return self.server.add_secure_port(listen, credentials)

    async def ready(self) -> None:
        """Says that the service answers: to health checks, to the log, and in the ready file."""
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        logger.info("%s answers at %s", self.id, " and ".join(filter(None, (self.address, self.http_address))))
        if self.settings.ready_file:
            self.settings.ready_file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.settings.ready_file.with_suffix(".tmp")
            facts = {"address": self.address, "http": self.http_address, "pid": os.getpid(), "parent": self.parent}
            temporary.write_text(json.dumps(facts))
            temporary.replace(self.settings.ready_file)

    def worked(self) -> None:
        """Notes that a piece of work was finished, for a supervisor that tells this from a service that only starts
        and dies: the file beside the ready file, with the suffix `.work`, is as old as the last note."""
        now = time.monotonic()
        if self.settings.ready_file and now - self._noted_work_at > NOTE_WORK_EVERY_S:
            self._noted_work_at = now
            self.settings.ready_file.with_suffix(".work").touch()


def _gate(settings: ServiceSettings) -> Gate | None:
    """Returns who may call, as the settings say; None where anyone may. InvalidInputError if they contradict each
    other."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise InvalidInputError("PERILUNE_TLS_CERT and PERILUNE_TLS_KEY belong together; one of them is missing")
    if settings.tls_client_ca and not settings.tls_cert:
        raise InvalidInputError("PERILUNE_TLS_CLIENT_CA needs a certificate of the service: PERILUNE_TLS_CERT and _KEY")
    if settings.tokens_file:
        return Gate(read_tokens(settings.tokens_file))
    return Gate({}) if settings.tls_client_ca else None


def main(name: str, settings_type: type[ServiceSettings], run: Callable[[Service], Awaitable[None]]) -> None:
    """The entry of every service's `__main__`: runs until `run` returns or a signal asks to stop.

    `run` gets the service, adds its servicers, calls `listen` and `ready`, and works until `service.stopping` is set.
    Exit status 2 means that the setting is wrong and a restart would not help.
    """
    logs.set_up(name)
    _take_descriptors()
    try:
        settings = settings_type()
        logging.getLogger().setLevel(settings.log_level)
        asyncio.run(_run(name, settings, run))
    except PeriluneError as error:
        logger.error("%s", error)
        is_outage = isinstance(error, UnavailableError) and not isinstance(error, SettingsError)
        sys.exit(1 if is_outage else 2)


def _take_descriptors() -> None:
    """Takes as many open files as the system allows: the usual 1,024 are soon used up by connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MAX_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(name: str, settings: ServiceSettings, run: Callable[[Service], Awaitable[None]]) -> None:
    service = Service(name, settings)
    telemetry.set_up(name, service.id, settings.metrics_port, service.metrics_host())
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, service.stopping.set)
    watches = [asyncio.create_task(_stop_with_parent(service))] if settings.exit_with_parent else []
    if settings.tokens_file and service.gate:
        changed = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, changed.set)
        watches.append(asyncio.create_task(_renew_tokens(service.gate, settings.tokens_file, changed)))
    try:
        await run(service)
    finally:
        for watch in watches:
            watch.cancel()
        await service.server.stop(grace=1.0)


async def _renew_tokens(gate: Gate, path: Path, asked: asyncio.Event) -> None:
    """Reads the tokens file again when it changes, or when that is asked for; a broken one changes nothing."""
    seen = _state_of(path)
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), TOKENS_EVERY_S)
        if not asked.is_set() and _state_of(path) == seen:
            continue
        asked.clear()
        seen = _state_of(path)
        try:
            gate.renew(await asyncio.to_thread(read_tokens, path))
        except InvalidInputError as error:
            logger.error("%s; the tokens read before stay in force", error)
        else:
            logger.info("read the tokens file %s again", path)


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """Returns what changes when a file does; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


async def _stop_with_parent(service: Service) -> None:
    while os.getppid() == service.parent:
        await asyncio.sleep(1.0)
    logger.warning("the process that started %s is gone; stopping", service.id)
    service.stopping.set()


def reachable_name(host: str) -> str:
    """Returns what others call a host that was listened on: every interface is no address, the machine's own name is
    one."""
    return socket.gethostname() if host in ("0.0.0.0", "[::]") else host


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the host."""
    if host in ("localhost", "unix"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


@contextlib.asynccontextmanager
async def patiently(
    open_: Callable[..., AbstractAsyncContextManager[T]], *arguments: Any, patience_s: float
) -> AsyncIterator[T]:
    """Enters `open_(*arguments)`, and tries again while that raises UnavailableError, for as long as patience lasts."""
    deadline = asyncio.get_running_loop().time() + patience_s
    async with contextlib.AsyncExitStack() as stack:
        while True:
            try:
                opened = await stack.enter_async_context(open_(*arguments))
                break
            except UnavailableError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                logger.warning("%s; waiting for it", error)
            await asyncio.sleep(RETRY_S)
        yield opened


async def until_stopping(service: Service, *work: Awaitable[Any]) -> None:
    """Runs the service's endless work until it is stopped; the first failure of any part is raised."""
    stop = asyncio.create_task(service.stopping.wait())
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in [stop, *tasks]:
            task.cancel()
        await asyncio.gather(stop, *tasks, return_exceptions=True)
