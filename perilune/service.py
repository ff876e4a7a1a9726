"""The shell that every service shares: settings, logging, a gRPC server with health and reflection, a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from perilune import telemetry
from perilune.channel import GRPC_OPTIONS
from perilune.channel import open_channel as open_channel  # noqa: PLC0414
from perilune.errors import STATUS_OF_ERROR, InvalidInputError, PeriluneError, UnavailableError

logger = logging.getLogger(__name__)


class ServiceSettings(BaseSettings):
    """What every service is told from outside: PERILUNE_LISTEN, PERILUNE_NATS_URL, and so on."""

    model_config = SettingsConfigDict(env_prefix="PERILUNE_")

    listen: str = "127.0.0.1:0"  # port 0: any free one
    advertise: str | None = None  # how others reach this service, where that differs from `listen`
    nats_url: str = "nats://127.0.0.1:4222"
    master_address: str = "127.0.0.1:7040"
    home: Path = Path("runs")  # where runs, checkpoints and the embedded database lie
    log_level: str = "INFO"
    ready_file: Path | None = None  # written when the service answers: {"address", "pid", "parent"}
    exit_with_parent: bool = False  # end when the process that started this one is gone
    allow_unauthenticated: bool = False  # listen beyond loopback although nothing asks callers who they are
    worker_id: str = Field(default_factory=lambda: uuid4().hex[:8])


class Service:
    """One running service: its settings, its gRPC server, and the event that tells it to stop."""

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        self.name = name
        self.settings = settings
        self.id = f"{name}-{settings.worker_id}"
        self.server = grpc.aio.server(options=GRPC_OPTIONS)
        self.stopping = asyncio.Event()
        self.address = ""
        self.parent = os.getppid() if settings.exit_with_parent else None  # who takes the service along
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]

    async def listen(self, services: Sequence[ServiceDescriptor]) -> None:
        """Opens the port for the servicers that were added to `server`; `address` is known afterwards.

        InvalidInputError if the port is taken, or open to others with nobody checking who calls.
        """
        host = self.settings.listen.rpartition(":")[0]
        if not is_loopback(host) and not self.settings.allow_unauthenticated:
            raise InvalidInputError(
                f"{self.name} would listen on {self.settings.listen} with no authentication; listen on 127.0.0.1, "
                "or accept it with PERILUNE_ALLOW_UNAUTHENTICATED=1"
            )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)  # type: ignore[no-untyped-call]
        names = [service.full_name for service in services] + [health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self.server)  # type: ignore[no-untyped-call]
        try:
            bound = self.server.add_insecure_port(self.settings.listen)
        except RuntimeError as error:
            raise InvalidInputError(
                f"{self.name} cannot listen on {self.settings.listen}: the port is in use or not ours; "
                "choose another with --listen (port 0 takes any free one)"
            ) from error
        self.address = self.settings.advertise or f"{host}:{bound}"
        await self.server.start()

    async def ready(self) -> None:
        """Says that the service answers: to health checks, to the log, and in the ready file."""
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        logger.info("%s answers at %s", self.id, self.address)
        if self.settings.ready_file:
            self.settings.ready_file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.settings.ready_file.with_suffix(".tmp")
            temporary.write_text(json.dumps({"address": self.address, "pid": os.getpid(), "parent": self.parent}))
            temporary.replace(self.settings.ready_file)


def main(name: str, settings_type: type[ServiceSettings], run: Callable[[Service], Awaitable[None]]) -> None:
    """The entry of every service's `__main__`: runs until `run` returns or a signal asks to stop.

    `run` gets the service, adds its servicers, calls `listen` and `ready`, and works until `service.stopping` is set.
    Exit status 2 means that the setting is wrong and a restart would not help.
    """
    settings = settings_type()
    logging.basicConfig(
        level=settings.log_level.upper(), format=f"%(asctime)s %(levelname).1s {name} %(name)s: %(message)s"
    )
    # gRPC's forks and cancelled streams are no news.
    logging.getLogger("grpc").setLevel(logging.ERROR)
    try:
        asyncio.run(_run(name, settings, run))
    except UnavailableError as error:
        logger.error("%s", error)
        sys.exit(1)
    except PeriluneError as error:
        logger.error("%s", error)
        sys.exit(2)


async def _run(name: str, settings: ServiceSettings, run: Callable[[Service], Awaitable[None]]) -> None:
    service = Service(name, settings)
    telemetry.set_up(name, service.id)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, service.stopping.set)
    watch = asyncio.create_task(_stop_with_parent(service)) if settings.exit_with_parent else None
    try:
        await run(service)
    finally:
        if watch:
            watch.cancel()
        await service.server.stop(grace=1.0)


async def _stop_with_parent(service: Service) -> None:
    while os.getppid() == service.parent:
        await asyncio.sleep(1.0)
    logger.warning("the process that started %s is gone; stopping", service.id)
    service.stopping.set()


def is_loopback(host: str) -> bool:
    if host in ("localhost", "unix"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


@contextlib.asynccontextmanager
async def rpc_errors(context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """Turns Perilune's own exceptions into the gRPC status that stands for each; others stay bugs."""
    try:
        yield
    except PeriluneError as error:
        status = next(STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)
        await context.abort(status, str(error))


async def until_stopping(service: Service, *work: Awaitable[Any]) -> None:
    """Runs the service's endless work until it is told to stop; the first failure of any part is raised."""
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
