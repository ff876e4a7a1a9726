"""A service that would be open to others, or whose settings contradict each other, does not start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from perilune.api.reward.v1.grader_pb2 import DescribeRequest
from perilune.api.reward.v1.grader_pb2_grpc import GraderServiceStub
from perilune.errors import InvalidInputError
from perilune.grading.plugin import start_grader
from perilune.runtime.auth import digest_of
from perilune.runtime.http import serve_http
from perilune.runtime.service import Service, ServiceSettings

HERE = "127.0.0.1:0"


async def start(**settings: Any) -> None:
    service = Service("reward", ServiceSettings(**({"listen": HERE} | settings)))
    try:
        await service.listen([])
        async with serve_http(service, {}):
            pass
    finally:
        await service.server.stop(None)


async def test_on_loopback_nobody_is_asked() -> None:
    await start(http_listen=HERE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"listen": "0.0.0.0:0"}, "PERILUNE_TOKENS_FILE"),
        ({"http_listen": "0.0.0.0:0"}, "PERILUNE_TOKENS_FILE"),
        ({"http_listen": "127.0.0.1:somewhere"}, "give HOST:PORT"),
        ({"tokens_file": Path("/nowhere.toml")}, "cannot be read"),
        ({"tls_cert": Path("/nowhere.pem")}, "belong together"),
        ({"tls_cert": Path("/nowhere.pem"), "tls_key": Path("/nowhere.key")}, "cannot be read"),
        ({"tls_client_ca": Path("/nowhere.pem")}, "needs a certificate of the service"),
    ],
)
async def test_what_is_wrong_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        await start(**settings)


async def test_with_tokens_or_in_so_many_words_it_may_be_open(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[alice]\ncertificate = "alice"\nroles = ["reward"]\n')
    await start(listen="0.0.0.0:0", http_listen="0.0.0.0:0", tokens_file=tokens)
    await start(listen="0.0.0.0:0", allow_unauthenticated=True)


async def test_metrics_are_served_where_the_service_listens_or_where_it_is_said(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[a]\nsha256 = "{"0" * 64}"\nroles = ["admin"]\n')
    open_to_all: dict[str, Any] = {"listen": "0.0.0.0:0", "metrics_port": 9464, "tokens_file": tokens}
    with pytest.raises(InvalidInputError, match="PERILUNE_METRICS_HOST"):
        Service("t", ServiceSettings(**open_to_all)).metrics_host()
    assert Service("t", ServiceSettings(**open_to_all, metrics_host="10.0.0.1")).metrics_host() == "10.0.0.1"
    assert Service("t", ServiceSettings(metrics_port=9464)).metrics_host() == "127.0.0.1"


async def test_a_plugged_in_grader_beyond_loopback_asks_who_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grade(response: str) -> float:
        return 1.0

    with pytest.raises(InvalidInputError, match="PERILUNE_TOKENS_FILE"):
        await start_grader(grade, "1", "0.0.0.0:0")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[reward]\nsha256 = "{digest_of("r")}"\nroles = ["reward-worker"]\n')
    monkeypatch.setenv("PERILUNE_TOKENS_FILE", str(tokens))
    server, address = await start_grader(grade, "1", "0.0.0.0:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{address.rpartition(':')[2]}") as channel:
        stub = GraderServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="asks who calls"):
            await stub.Describe(DescribeRequest(), timeout=20)
        described = await stub.Describe(DescribeRequest(), metadata=(("authorization", "Bearer r"),), timeout=20)
    await server.stop(None)
    assert described.grader.name == "grade"
