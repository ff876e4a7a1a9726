"""Where faults are inflicted: what a deployment must be able to do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from perilune.chaos.malformed import Malformed


class Deployment(Protocol):
    """A system of services that faults can be inflicted on. What it cannot do, it does not offer: no `links`, no
    `stores`. Each fault lasts for as long as its context is open."""

    @property
    def services(self) -> Sequence[str]:
        """The services that can be killed and stopped, in a fixed order; the bus is `nats`."""

    @property
    def links(self) -> Sequence[str]:
        """Connections that can be cut or slowed, as `client>server`, in a fixed order."""

    @property
    def stores(self) -> Sequence[str]:
        """What can be taken away beside services: `database` (locked), `bus` (loses all that it holds)."""

    def away(self, service: str) -> AbstractAsyncContextManager[None]:
        """Kills a service at once, and lets it start again at the context's end."""

    def stopped(self, service: str) -> AbstractAsyncContextManager[None]:
        """Stops a service's process where it is (SIGSTOP), and lets it go on at the context's end (SIGCONT)."""

    def cut(self, link: str) -> AbstractAsyncContextManager[None]:
        """Lets nothing through between two services, without closing their connections."""

    def slowed(self, link: str) -> AbstractAsyncContextManager[None]:
        """Delays what goes between two services, as a slow and lossy network does."""

    def locked_database(self) -> AbstractAsyncContextManager[None]:
        """Keeps every writer out of the database."""

    async def empty_bus(self) -> None:
        """Kills the bus, deletes all that it holds, and starts it again."""

    async def publish(self, messages: Sequence[Malformed]) -> None:
        """Publishes messages on the bus as they are."""
