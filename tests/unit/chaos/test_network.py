"""A link that is cut carries nothing, keeps its connections, and delivers later what was sent meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from perilune.chaos.network import DELAY_S, Network


async def test_a_link_is_cut_slowed_and_open_again() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    network = Network()
    address = network.route("reward-1", "nats", f"{host}:{port}")
    async with server, network.opened():
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))

        async def said(word: bytes) -> bytes:
            writer.write(word)
            return await reader.readexactly(len(word))

        assert await said(b"one") == b"one"
        async with network.cut("reward-1>nats"):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(said(b"two"), 0.2)
        assert await reader.readexactly(3) == b"two"
        async with network.slowed("reward-1>nats"):
            began = time.monotonic()
            assert await said(b"three") == b"three"
            assert time.monotonic() - began >= 2 * DELAY_S
        assert await said(b"four") == b"four"
        writer.close()
