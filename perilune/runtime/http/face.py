"""From an HTTP request to a call of a servicer's method, and back: JSON in, JSON or lines of JSON out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from perilune.channel import MAX_MESSAGE_BYTES
from perilune.errors import rpc_errors
from perilune.runtime.auth import ANYONE, Caller, Gate
from perilune.runtime.http.context import HttpContext, certificate_names
from perilune.runtime.http.problems import RpcAborted, problem_of, problem_response
from perilune.runtime.telemetry import context_of, meter, tracer

logger = logging.getLogger(__name__)

JSON = "application/json"
NDJSON = "application/x-ndjson"
# Milliseconds that the caller will wait; the name is the Connect protocol's.
TIMEOUT_HEADER = "connect-timeout-ms"
LARGE_BODY_BYTES = 64 << 10

_answered = meter.create_counter("perilune.http.answered", description="HTTP calls, by method and gRPC code")


@dataclass(frozen=True)
class Method:
    """A method of a servicer, and where it is found over HTTP."""

    descriptor: MethodDescriptor
    behaviour: Callable[[Any, Any], Any]

    @property
    def service(self) -> str:
        """The service's full name in its proto."""
        return self.descriptor.containing_service.full_name

    @property
    def rpc(self) -> str:
        """Its path in gRPC, such as `perilune.api.reward.v1.RewardService/Score`."""
        return f"{self.service}/{self.descriptor.name}"

    @property
    def path(self) -> str:
        """`/reward/v1/score-batch` for perilune.api.reward.v1.RewardService.ScoreBatch."""
        *_, room, version = self.descriptor.containing_service.file.package.split(".")
        words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in self.descriptor.name)
        return f"/{room}/{version}/{words.lstrip('-')}"

    @property
    def http_methods(self) -> list[str]:
        """Returns what asks for nothing in particular can be asked for by a browser too."""
        return ["POST"] if self.descriptor.input_type.fields else ["GET", "POST"]


def methods_of(servicers: Mapping[ServiceDescriptor, object]) -> list[Method]:
    """The methods that HTTP can carry: all but those that take a stream."""
    found = [
        Method(method, getattr(servicer, method.name))
        for service, servicer in servicers.items()
        for method in service.methods
        if not method.client_streaming
    ]
    assert len({method.path for method in found}) == len(found), "two methods have one path"
    return found


def identify(request: Request, gate: Gate | None) -> Caller:
    """The caller; ANYONE without authentication. UnauthenticatedError."""
    if gate is None:
        return ANYONE
    return gate.caller(request.headers.get("authorization", ""), certificate_names(request))


@dataclass(frozen=True)
class Endpoint:
    """One method as an ASGI application."""

    method: Method
    gate: Gate | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request (ASGI)."""
        request = Request(scope, receive)
        with tracer.start_as_current_span(self.method.path, context=context_of(dict(request.headers))):
            await self._answer(request, send)

    async def _answer(self, request: Request, send: Send) -> None:
        """Reads the request, has it answered for as long as its caller is there, and counts how it went."""
        answer = _Answer(send, streams=self.method.descriptor.server_streaming)
        failure = None
        try:
            context = HttpContext(request, _deadline(request))
            async with rpc_errors(context):
                caller = identify(request, self.gate)  # before the body: a stranger's is not read
                message = await _read(request, self.method)
            await _while_connected(request, self._call(message, context, caller, answer))
        except RpcAborted as error:
            failure = error
        except Exception:
            logger.exception("%s failed", self.method.path)
            failure = RpcAborted(grpc.StatusCode.INTERNAL, "the service failed; its log says how")
        _answered.add(1, {"method": self.method.path, "code": failure.code.name if failure else "OK"})
        await (answer.fail(failure, request) if failure else answer.end())

    async def _call(self, message: Message, context: HttpContext, caller: Caller, answer: _Answer) -> None:
        try:
            async with asyncio.timeout(context.time_remaining()) as limit, rpc_errors(context):
                with caller.call(self.method.rpc):
                    answers = self.method.behaviour(message, context)
                    if self.method.descriptor.server_streaming:
                        async with contextlib.aclosing(answers):
                            async for each in answers:
                                await answer.send(each)
                    else:
                        await answer.send(await answers)
                    context.raise_if_failed()
        except TimeoutError as error:
            if not limit.expired():
                raise
            details = f"no answer within the {TIMEOUT_HEADER} of the call"
            raise RpcAborted(grpc.StatusCode.DEADLINE_EXCEEDED, details) from error


class _Answer:
    """Describes what goes back: one document, or a line for each message of a stream as soon as it is there."""

    def __init__(self, send: Send, streams: bool) -> None:
        self._send = send
        self._streams = streams
        self._body = b""
        self._started = False

    async def send(self, message: Message) -> None:
        text = json_format.MessageToJson(message, indent=None, always_print_fields_with_no_presence=True)
        self._body = text.encode() + b"\n"
        if self._streams:
            await self._send_part(more=True)

    async def end(self) -> None:
        await self._send_part(more=False)

    async def fail(self, error: RpcAborted, request: Request) -> None:
        """A problem document, or the last line of a stream that has begun: {"problem": …}."""
        if not self._started:
            await problem_response(error)(request.scope, request.receive, self._send)
            return
        self._body = json.dumps({"problem": problem_of(error)}).encode() + b"\n"
        await self._send_part(more=False)

    async def _send_part(self, more: bool) -> None:
        if not self._started:
            headers = {} if self._streams else {"content-length": str(len(self._body))}
            start = Response(None, 200, headers, NDJSON if self._streams else JSON)
            raw = [(key, value) for key, value in start.raw_headers if not (self._streams and key == b"content-length")]
            await self._send({"type": "http.response.start", "status": 200, "headers": raw})
            self._started = True
        await self._send({"type": "http.response.body", "body": self._body, "more_body": more})
        self._body = b""


async def _read(request: Request, method: Method) -> Message:
    """The request message. RpcAborted says what is wrong with the body."""
    message = GetMessageClass(method.descriptor.input_type)()
    if request.method == "GET":
        return message
    body = await read_body(request)
    if len(body) < LARGE_BODY_BYTES:
        return _parse(body, message)
    return await asyncio.to_thread(_parse, body, message)


async def read_body(request: Request) -> bytes:
    """The body of a request. RpcAborted if it is too large, or said to be no JSON."""
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type != JSON:
        details = f"the body is {media_type}; send {JSON}"
        raise RpcAborted(grpc.StatusCode.INVALID_ARGUMENT, details, http_status=415)
    max_bytes = request.scope.get("state", {}).get("max_request_bytes", MAX_MESSAGE_BYTES)
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if not (declared.isdigit() and int(declared) > max_bytes):  # else nothing of it is read
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                break
        else:
            return bytes(body)
    details = f"the body is larger than {max_bytes >> 20} MiB; send it in parts"
    raise RpcAborted(grpc.StatusCode.INVALID_ARGUMENT, details, http_status=413)


def _parse(body: bytes, message: Message) -> Message:
    name = message.DESCRIPTOR.name
    try:
        text = body.decode() or "{}"
        if not text.lstrip().startswith("{"):
            raise json_format.ParseError("it is no JSON object")
        return json_format.Parse(text, message)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise RpcAborted(grpc.StatusCode.INVALID_ARGUMENT, f"the body is no {name}: {error}") from error


def _deadline(request: Request) -> float | None:
    """On the event loop's clock; None without the header. RpcAborted for what is no number of milliseconds."""
    header = request.headers.get(TIMEOUT_HEADER)
    if header is None:
        return None
    if not (header.isascii() and header.isdigit() and len(header) <= 10 and int(header)):
        raise RpcAborted(grpc.StatusCode.INVALID_ARGUMENT, f"{TIMEOUT_HEADER} must be 1 to 9999999999, not {header!r}")
    return asyncio.get_running_loop().time() + int(header) / 1000


async def _while_connected(request: Request, work: Coroutine[Any, Any, None]) -> None:
    """Does the work, unless its caller leaves before it is done."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request.receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RpcAborted(grpc.StatusCode.CANCELLED, "the caller left")
        working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
