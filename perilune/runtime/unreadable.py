"""A request is read when its call is let in, not before; bytes that are no message are the caller's mistake.

gRPC by itself reads a unary request whole before anything asks who sends it, and answers UNKNOWN, with a trace, to one
that cannot be decoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from perilune.runtime.interception import each_of

BODY_S = 120.0  # in which a request must have arrived whole, once its call has begun


@dataclass(frozen=True)
class _Unreadable:
    """Describes what stands for a request that could not be read."""

    why: str


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Turns methods that take one request into ones that read it themselves: behind every interceptor before this one.

    INVALID_ARGUMENT answers what is no message of the method's type, DEADLINE_EXCEEDED what does not arrive. Streams of
    requests pass as they are: only our own services send those.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Wraps a method that takes one request, so that it reads that itself."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        return _reading(handler)


def _reading(handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    assert handler.request_deserializer
    behaviour: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary

    async def answer(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return await behaviour(await _read(requests, context), context)

    async def answers(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        async for each in each_of(behaviour(await _read(requests, context), context)):
            yield each

    reader = _reader(handler.request_deserializer)
    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(answers, reader, handler.response_serializer)
    return grpc.stream_unary_rpc_method_handler(answer, reader, handler.response_serializer)


async def _read(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """The call's request; ends the call if there is none that can be read."""
    try:
        async with asyncio.timeout(BODY_S):
            request = await anext(aiter(requests), _Unreadable("it is missing"))
    except TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"the request did not arrive within {BODY_S:g} s")
    if isinstance(request, _Unreadable):
        reason = f"the request is no message of this method: {request.why}"
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
    return request


def _reader(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Unreadable(str(error))

    return read
