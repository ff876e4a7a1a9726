"""A servicer over HTTP: JSON, lines of JSON, problems, deadlines, callers that leave."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from perilune.channel import MAX_MESSAGE_BYTES
from perilune.runtime.service import Service
from tests.unit.http.conftest import Ask
from tests.unit.http.servicer import ScriptedServicer

SCORE, BATCH, LIST = "/reward/v1/score", "/reward/v1/score-batch", "/reward/v1/list-graders"


async def test_json_in_json_out(ask: Ask, servicer: ScriptedServicer) -> None:
    answer = await ask(
        SCORE, {"question": "q", "graders": [{"name": "math"}], "deadlineS": 1.5, "idempotency_key": "k"}
    )
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"score": {"status": "SCORE_STATUS_OK", "value": 0.0, "components": []}}
    (request,) = servicer.requests
    assert (request.graders[0].name, request.deadline_s, request.idempotency_key) == ("math", 1.5, "k")


async def test_a_stream_is_a_line_for_each_message(ask: Ask) -> None:
    answer = await ask(BATCH, {"requests": [{}, {}, {}]})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert [(line["index"], line["score"]["value"]) for line in answer.lines] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert (await ask(BATCH, {})).body == b""


async def test_what_asks_for_nothing_can_be_got(ask: Ask) -> None:
    assert (await ask(LIST, method="GET")).json == {"graders": []}
    assert (await ask(LIST, {})).json == {"graders": []}


@pytest.mark.parametrize(
    ("question", "status", "code", "detail"),
    [
        ("bad", 400, "INVALID_ARGUMENT", "did you mean 'exact'?"),
        ("full", 429, "RESOURCE_EXHAUSTED", "full"),
        ("code", 404, "NOT_FOUND", "set by hand"),
        ("bug", 500, "INTERNAL", "the service failed"),
    ],
)
async def test_a_failure_is_a_problem_document(ask: Ask, question: str, status: int, code: str, detail: str) -> None:
    answer = await ask(SCORE, {"question": question})
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json["status"], answer.json["code"], answer.json["type"]) == (status, code, "about:blank")
    assert detail in answer.json["detail"]
    assert "secret" not in answer.json["detail"]
    assert answer.headers.get("retry-after") == ("3" if question == "full" else None)


async def test_a_stream_that_breaks_ends_in_a_problem(ask: Ask) -> None:
    at_once = await ask(BATCH, {"requests": [{"question": "fail"}]})
    assert (at_once.status, at_once.json["code"]) == (503, "UNAVAILABLE")
    later = await ask(BATCH, {"requests": [{}, {"question": "fail"}]})
    assert later.status == 200
    assert later.lines[0]["index"] == 0
    assert later.lines[1]["problem"]["code"] == "UNAVAILABLE"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"refrence": "x"}',
        b'{"question": 5}',
        b'{"question": "\\ud800"}',
        b'{"deadlineS": "soon"}',
        b'{"deadlineS": 1e999}',
        b'{"graders": {"name": "math"}}',
        b'{"images": [{"data": "not base64!"}]}',
        b'{"question": "a", "question": "b"}',
        b'{"graders": ' + b"[" * 100_000,
    ],
)
async def test_a_body_that_is_no_request_is_a_client_error(ask: Ask, body: bytes) -> None:
    answer = await ask(SCORE, body)
    assert (answer.status, answer.json["code"]) == (400, "INVALID_ARGUMENT")
    assert answer.json["detail"].startswith("the body is no ScoreRequest")


async def test_other_client_errors_are_problems_too(ask: Ask) -> None:
    assert (await ask(SCORE, b"question=x", {"content-type": "application/x-www-form-urlencoded"})).status == 415
    assert (await ask(SCORE, b" " * (MAX_MESSAGE_BYTES + 1))).status == 413
    unknown = await ask("/reward/v1/scoore", {})
    assert (unknown.status, unknown.json["code"]) == (404, "NOT_FOUND")
    wrong = await ask(SCORE, method="GET")
    assert (wrong.status, wrong.headers["content-type"], wrong.headers["allow"]) == (
        405,
        "application/problem+json",
        "POST",
    )


async def test_the_deadline_is_the_methods(ask: Ask, servicer: ScriptedServicer) -> None:
    remaining = await ask(SCORE, {"question": "remaining"}, {"connect-timeout-ms": "60000"})
    assert 30 < remaining.json["score"]["value"] <= 60
    late = await ask(SCORE, {"question": "hang"}, {"connect-timeout-ms": "50"})
    assert (late.status, late.json["code"]) == (504, "DEADLINE_EXCEEDED")
    assert servicer.events == ["began", "cancelled"]
    for wrong in ("0", "-1", "1.5", "soon", "٣", "99999999999"):
        answer = await ask(SCORE, {}, {"connect-timeout-ms": wrong.encode().decode("latin-1")})
        assert (answer.status, answer.json["code"]) == (400, "INVALID_ARGUMENT")


async def test_work_ends_when_its_caller_leaves(service: Service, servicer: ScriptedServicer) -> None:
    place = urlsplit(service.http_address)
    body = b'{"question": "hang"}'
    _, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(
        b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (SCORE.encode(), len(body), body)
    )
    await asyncio.wait_for(servicer.changed.wait(), 30)
    servicer.changed.clear()
    writer.close()
    await asyncio.wait_for(servicer.changed.wait(), 30)
    assert servicer.events == ["began", "cancelled"]


async def test_the_first_line_comes_before_the_last_is_known(service: Service, servicer: ScriptedServicer) -> None:
    place = urlsplit(service.http_address)
    body = b'{"requests": [{}, {"question": "hang"}]}'
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(
        b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (BATCH.encode(), len(body), body)
    )
    await asyncio.wait_for(reader.readuntil(b'"index": 0'), 30)
    assert not servicer.events
    writer.close()
    await asyncio.wait_for(servicer.changed.wait(), 30)
    assert servicer.events == ["cancelled"]


async def test_the_page_is_all_there(ask: Ask) -> None:
    page = await ask("/docs/", method="GET")
    assert b'src="start.js"' in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"http" not in page.body.replace(b"http-equiv", b"")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        assert (await ask(f"/docs/assets/{asset}", method="GET")).status == 200
    assert b"../openapi.json" in (await ask("/docs/start.js", method="GET")).body
    assert (await ask("/", method="GET")).headers["location"].endswith("docs/")
    assert (await ask("/healthz", method="GET")).body == b"ok\n"
