"""A service with an HTTP face, in this process, and a plain HTTP client."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from perilune.api.reward.v1.reward_pb2_grpc import add_RewardServiceServicer_to_server
from perilune.runtime.http import serve_http
from perilune.runtime.service import Service, ServiceSettings
from tests.unit.http.servicer import REWARD_SERVICE, ScriptedServicer


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
def servicer() -> ScriptedServicer:
    return ScriptedServicer()


@pytest.fixture
async def service(servicer: ScriptedServicer) -> AsyncIterator[Service]:
    running = Service("reward", ServiceSettings(listen="127.0.0.1:0", http_listen="127.0.0.1:0"))
    add_RewardServiceServicer_to_server(servicer, running.server)
    await running.listen([REWARD_SERVICE])
    async with serve_http(running, {REWARD_SERVICE: servicer}):
        yield running
    await running.server.stop(None)


@pytest.fixture
def ask(service: Service) -> Ask:
    """Asks for a path with a body (JSON, or bytes as they are) and headers."""
    place = urlsplit(service.http_address)

    def send(path: str, body: Any, headers: dict[str, str], method: str) -> Answer:
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {"content-type": "application/json"} | headers)
        response = connection.getresponse()
        answer = Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        connection.close()
        return answer

    async def ask(path: str, body: Any = None, headers: dict[str, str] | None = None, method: str = "POST") -> Answer:
        return await asyncio.to_thread(send, path, body, headers or {}, method)

    return ask
