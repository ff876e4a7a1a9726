"""Bytes that are no message are the caller's mistake, and are told so; gRPC by itself answers UNKNOWN, with a trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError


@dataclass(frozen=True)
class _Unreadable:
    """What stands for a request that could not be read."""

    why: str


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Answers INVALID_ARGUMENT to a request that is no message of the method's type. Streams of requests pass as they
    are: only our own services send those."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        read = _reader(handler.request_deserializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _checked_stream(handler.unary_stream), read, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            _checked_unary(handler.unary_unary), read, handler.response_serializer
        )


def _reader(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Unreadable(str(error))

    return read


def _checked_unary(behaviour: Any) -> Callable[..., Awaitable[Any]]:
    async def checked(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if isinstance(request, _Unreadable):
            await _refuse(request, context)
        return await behaviour(request, context)

    return checked


def _checked_stream(behaviour: Any) -> Callable[..., AsyncIterator[Any]]:
    async def checked(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        if isinstance(request, _Unreadable):
            await _refuse(request, context)
        async for answer in behaviour(request, context):
            yield answer

    return checked


async def _refuse(request: _Unreadable, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request is no message of this method: {request.why}")
