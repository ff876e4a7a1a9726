"""Kinds of faults, one a row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from perilune.chaos.deployment import Deployment
from perilune.chaos.malformed import malformed


@dataclass(frozen=True)
class Kind:
    """Describes a kind of fault."""

    what: str  # for a reader
    targets: Callable[[Deployment], Sequence[str]]  # none where the deployment cannot have it
    inflict: Callable[[Deployment, str, int, str], AbstractAsyncContextManager[None]]
    """Of a deployment, a target, the fault's number and the run: the fault, for as long as its context is open."""
    lasts: bool = True
    weight: float = 1.0  # how often it is drawn, beside the others


@asynccontextmanager
async def _empty_bus(deployment: Deployment) -> AsyncIterator[None]:
    await deployment.empty_bus()
    yield


@asynccontextmanager
async def _malformed(deployment: Deployment, number: int, run_id: str) -> AsyncIterator[None]:
    await deployment.publish(malformed(number, run_id))
    yield


def _if_offered(name: str) -> Callable[[Deployment], Sequence[str]]:
    return lambda deployment: [name] if name in deployment.stores else []


KINDS = {
    "kill": Kind(
        "a process is killed (SIGKILL)",
        lambda deployment: deployment.services,
        lambda deployment, target, number, run_id: deployment.away(target),
        lasts=False,
        weight=3.0,
    ),
    "stop": Kind(
        "a process stands still (SIGSTOP) and goes on later",
        lambda deployment: deployment.services,
        lambda deployment, target, number, run_id: deployment.stopped(target),
        weight=2.0,
    ),
    "outage": Kind(
        "a service is killed and stays away for a while",
        lambda deployment: deployment.services,
        lambda deployment, target, number, run_id: deployment.away(target),
        weight=2.0,
    ),
    "partition": Kind(
        "nothing gets through between two services",
        lambda deployment: deployment.links,
        lambda deployment, target, number, run_id: deployment.cut(target),
        weight=2.0,
    ),
    "slow": Kind(
        "a slow and lossy network between two services",
        lambda deployment: deployment.links,
        lambda deployment, target, number, run_id: deployment.slowed(target),
    ),
    "locked": Kind(
        "another process holds the database's only write lock",
        _if_offered("database"),
        lambda deployment, target, number, run_id: deployment.locked_database(),
    ),
    "empty": Kind(
        "the bus starts again with nothing of what it held",
        _if_offered("bus"),
        lambda deployment, target, number, run_id: _empty_bus(deployment),
        lasts=False,
        weight=0.5,
    ),
    "malformed": Kind(
        "messages that no service can read, on every subject of the run",
        lambda deployment: ["nats"] if "nats" in deployment.services else [],
        lambda deployment, target, number, run_id: _malformed(deployment, number, run_id),
        lasts=False,
    ),
}
