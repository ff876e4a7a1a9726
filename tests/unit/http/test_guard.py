"""Connections that ask for nothing: they are ended in time, and keep no one else out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from starlette.datastructures import Headers

from perilune.logs import REPEAT_S, Sparing
from perilune.runtime.http import guard
from perilune.runtime.http.origin import SameOrigin, may_be_asked
from perilune.runtime.service import Service
from tests.unit.http.conftest import Ask

HEAD = b"POST /reward/v1/list-graders HTTP/1.1\r\nhost: 127.0.0.1\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connections(service: Service, number: int, sent: bytes) -> AsyncIterator[list[Connection]]:
    place = urlsplit(service.http_address)
    opened = [await asyncio.open_connection(place.hostname, place.port) for _ in range(number)]
    for _, writer in opened:
        writer.write(sent)
    try:
        yield opened
    finally:
        for _, writer in opened:
            writer.close()


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What came until the server closed the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"content-length: 5\r\n\r\n{"])
async def test_a_request_that_does_not_come_is_not_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(guard, "HEAD_S", 0.3)
    monkeypatch.setattr(guard, "BODY_S", 0.3)
    async with connections(service, 10, sent) as opened:
        assert await asyncio.gather(*(ends(reader) for reader, _ in opened)) == [b""] * 10


async def test_bytes_that_come_one_by_one_earn_no_more_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEAD_S", 0.5)
    async with connections(service, 1, HEAD) as [(reader, writer)]:
        started, ending = time.monotonic(), asyncio.create_task(ends(reader))
        while not ending.done():
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert time.monotonic() - started < 2


async def test_where_too_many_are_connected_who_asks_is_answered(
    service: Service, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MAX_CONNECTIONS", 5)
    async with connections(service, 8, HEAD) as opened:
        assert (await ask("/reward/v1/list-graders", {})).status == 200
        assert [await ends(reader) for reader, _ in opened[:3]] == [b""] * 3  # the oldest made room
        assert (await ask("/reward/v1/list-graders", {})).status == 200


async def test_a_body_that_is_too_large_is_refused_unread(service: Service) -> None:
    declared = HEAD + b"content-type: application/json\r\ncontent-length: 9999999999\r\n\r\n"
    async with connections(service, 1, declared) as [(reader, _)]:
        assert b"413" in await asyncio.wait_for(reader.readline(), 5)


def test_a_complaint_is_written_once_in_a_while() -> None:
    now = 0.0
    sparing = Sparing(lambda: now)

    def record(text: str) -> logging.LogRecord:
        return logging.LogRecord(
            "asyncio", logging.ERROR, "", 0, "%s is wrong\ntrace" if text else "other", (text,), None
        )

    first = record("it")
    assert sparing.filter(first)
    assert not any(sparing.filter(record("it")) for _ in range(500))
    assert sparing.filter(logging.LogRecord("asyncio", logging.ERROR, "", 0, "another", (), None))
    now = REPEAT_S + 1
    late = record("it")
    assert sparing.filter(late)
    assert late.getMessage().endswith("(500 times more in the last 11 s)")


@pytest.mark.parametrize(
    ("host", "may"),
    [
        *(("127.0.0.1", True), ("10.1.2.3", True), ("[::1]", True), ("localhost", True), ("master", True)),
        *(("perilune-master.default.svc", True), ("master.cluster.local", True), ("runs.example.org", True)),
        *(("evil.example", False), ("master.evil.example", False), ("127.0.0.1.evil.example", False), ("", False)),
        *(("RUNS.example.org.", True), ("localhost.evil.example", False), (".", False)),
    ],
)
def test_where_no_token_is_asked_for_a_name_that_a_site_could_have_is_refused(host: str, may: bool) -> None:
    assert may_be_asked(host, {"runs.example.org"}) == may
    app = SameOrigin(None, loopback_only=False, hosts={"runs.example.org"})  # type: ignore[arg-type]
    assert (app.objection(Headers({"host": f"{host}:7080"})) is None) == may
    assert SameOrigin(None, loopback_only=False).objection(Headers({"host": host})) is None  # type: ignore[arg-type]
