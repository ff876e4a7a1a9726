"""Faults on the processes of one machine, as `perilune train` starts them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Sequence

import nats

from perilune.chaos.malformed import Malformed
from perilune.chaos.network import Network
from perilune.local.cluster import FLEET, LocalCluster

LOCK_PATIENCE_S = 30.0


class Processes:
    """The services of a local cluster that were started with a network between them. See `Deployment`."""

    stores: Sequence[str] = ("database", "bus")

    def __init__(self, cluster: LocalCluster, network: Network, services: Sequence[str]) -> None:
        """`services`: those that faults may hit; all of them are started with the cluster."""
        self._cluster, self._network = cluster, network
        self.services = services

    @property
    def links(self) -> Sequence[str]:
        """The links between services that faults may hit."""
        return [link for link in self._network.links if self._is_used(*link.split(">"))]

    def _is_used(self, client: str, server: str) -> bool:
        calls = client == FLEET or (client in self.services and client != "sandbox")
        return calls and server in self.services and client != server

    @contextlib.asynccontextmanager
    async def away(self, service: str) -> AsyncIterator[None]:
        """See Deployment."""
        async with self._cluster.without(service):
            yield

    @contextlib.asynccontextmanager
    async def stopped(self, service: str) -> AsyncIterator[None]:
        """See Deployment."""
        pid = self._cluster.pids[service]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def cut(self, link: str) -> AsyncIterator[None]:
        """See Deployment."""
        async with self._network.cut(link):
            yield

    @contextlib.asynccontextmanager
    async def slowed(self, link: str) -> AsyncIterator[None]:
        """See Deployment."""
        async with self._network.slowed(link):
            yield

    @contextlib.asynccontextmanager
    async def locked_database(self) -> AsyncIterator[None]:
        """See Deployment."""
        database = await asyncio.to_thread(_locked, str(self._cluster.home / "perilune.db"))
        try:
            yield
        finally:
            await asyncio.to_thread(database.close)  # which rolls back

    async def empty_bus(self) -> None:
        """See Deployment."""
        async with self._cluster.without("nats"):
            await asyncio.to_thread(shutil.rmtree, self._cluster.home / "nats")

    async def publish(self, messages: Sequence[Malformed]) -> None:
        """See Deployment."""
        client = await nats.connect(self._cluster.nats_url)
        try:
            for message in messages:
                await client.publish(message.subject, message.payload, headers=message.headers or None)
            await client.flush()
        finally:
            await client.close()


def _locked(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=LOCK_PATIENCE_S, isolation_level=None, check_same_thread=False)
    database.execute("BEGIN IMMEDIATE")
    return database
