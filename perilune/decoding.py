"""Bytes that are no message are the caller's mistake, and are told so; gRPC by itself answers UNKNOWN, with a trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from perilune.interception import wrapped


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
        return wrapped(handler, _readable, _reader(handler.request_deserializer))


def _reader(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Unreadable(str(error))

    return read


@asynccontextmanager
async def _readable(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    if isinstance(request, _Unreadable):
        reason = f"the request is no message of this method: {request.why}"
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
    yield
