"""Signs of life: what a service says of itself every few seconds, so that one that is stuck can be named.

A process that answers may still be stuck, and one that is slow is not: what counts is progress, or, where a single step
takes long, the processor time that it uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from perilune.api.master.v1.master_pb2 import HeartbeatRequest
from perilune.api.master.v1.master_pb2_grpc import FleetServiceStub
from perilune.channel import open_channel
from perilune.runtime.service import Service

if TYPE_CHECKING:
    from perilune.api.master.v1.master_pb2_grpc import FleetServiceAsyncStub

HEARTBEAT_S = 3.0
ANSWER_S = 3.0  # for a heartbeat, or for a service that is asked how it is


@dataclass(frozen=True)
class Vitals:
    """Describes how a service's work gets on."""

    doing: str = ""  # what it works on, for a reader; empty while it waits for others
    progress: int = 0  # differs after every piece of work, however small
    run_id: str = ""


async def beat(
    service: Service, look: Callable[[], Vitals] = Vitals, dependency: tuple[str, str] | None = None
) -> None:
    """Tells the master again and again that this service lives, and how its work gets on; ends only when cancelled.

    `dependency`: kind and address of a service without a master that this one needs, a sandbox. While it answers, that
    is said on its behalf. A master that is away, or too old to listen, is not waited for.
    """
    async with contextlib.AsyncExitStack() as stack:
        master: FleetServiceAsyncStub = FleetServiceStub(
            await stack.enter_async_context(open_channel(service.settings.master_address))
        )
        other = await stack.enter_async_context(open_channel(dependency[1])) if dependency else None
        while True:
            vitals = look()
            own = HeartbeatRequest(
                worker_id=service.id,
                kind=service.name,
                address=service.address,
                host=socket.gethostname(),
                pid=os.getpid(),
                run_id=vitals.run_id,
                doing=vitals.doing,
                progress=vitals.progress,
                cpu_seconds=cpu_seconds(),
            )
            await _send(master, own)
            if dependency and other and await _is_well(other):
                kind, address = dependency
                of_other = HeartbeatRequest(
                    worker_id=f"{kind} {address}", kind=kind, address=address, reporter_id=service.id
                )
                await _send(master, of_other)
            await asyncio.sleep(HEARTBEAT_S)


async def _send(master: FleetServiceAsyncStub, heartbeat: HeartbeatRequest) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):  # its membership says what is wrong with the master
        await master.Heartbeat(heartbeat, timeout=ANSWER_S)


async def _is_well(channel: grpc.aio.Channel) -> bool:
    stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def cpu_seconds() -> float:
    """Processor time of this process and, where the kernel says it (Linux), of all processes below it that live."""
    return time.process_time() + sum(map(_cpu_seconds_of, _below(os.getpid())))


def _below(pid: int) -> Iterator[int]:
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            for child in map(int, tasks.read_text().split()):
                yield child
                yield from _below(child)


def _cpu_seconds_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
