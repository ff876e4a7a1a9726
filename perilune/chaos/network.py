"""A network between processes of one machine that can be cut and slowed: a TCP relay for each pair of services."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

CHUNK_BYTES = 64 << 10
DELAY_S = 0.2  # of each chunk on a slow link: a lost packet is a delay, for TCP sends it again
SLOW_BYTES_PER_S = 1 << 20


@dataclass(eq=False)
class Link:
    """A connection from one service to another, through here. While it is cut, what is sent waits, as it does in a
    network that lost its way: connections stay open, and nothing is answered."""

    listening: socket.socket
    target: str
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    delay_s: float = 0.0
    num_bytes: int = 0  # that went through, both ways

    def __post_init__(self) -> None:
        self.is_open.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relays one connection until either side closes it."""
        host, _, port = self.target.rpartition(":")
        await self.is_open.wait()
        try:
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        both = [
            asyncio.create_task(self._pump(reader, there_writer)),
            asyncio.create_task(self._pump(there_reader, writer)),
        ]
        try:
            await asyncio.wait(both)
        finally:
            for pump in both:
                pump.cancel()
            there_writer.close()
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self.is_open.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s + len(data) / SLOW_BYTES_PER_S)
                writer.write(data)
                await writer.drain()
                self.num_bytes += len(data)
        await self.is_open.wait()
        writer.close()


class Network:
    """All links of a deployment, on the loopback interface."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self._servers: list[asyncio.Server] = []

    def route(self, client: str, server: str, address: str) -> str:
        """Makes a link, and returns the address by which the client reaches the server through it."""
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.links[f"{client}>{server}"] = Link(listening, address)
        return f"127.0.0.1:{listening.getsockname()[1]}"

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Carries what goes over the links that were made, while the context is open."""
        for link in self.links.values():
            self._servers.append(await asyncio.start_server(link.carry, sock=link.listening, limit=CHUNK_BYTES))
        try:
            yield
        finally:
            for server in self._servers:
                server.close()

    @contextlib.asynccontextmanager
    async def cut(self, link: str) -> AsyncIterator[None]:
        """Lets nothing through while the context is open."""
        self.links[link].is_open.clear()
        try:
            yield
        finally:
            self.links[link].is_open.set()

    @contextlib.asynccontextmanager
    async def slowed(self, link: str) -> AsyncIterator[None]:
        """Delays what goes through while the context is open."""
        self.links[link].delay_s = DELAY_S
        try:
            yield
        finally:
            self.links[link].delay_s = 0.0
