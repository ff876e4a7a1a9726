"""Holds what our gRPC interceptors share: a method handler of any kind, with something before and after its
behaviour."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc

Around = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], AbstractAsyncContextManager[None]]


def wrapped(handler: grpc.RpcMethodHandler, around: Around) -> grpc.RpcMethodHandler:
    """The handler of the same method that does its work within `around(request, context)`.

    Args:
        handler: unary or a stream, on either side.
        around: entered before the behaviour and left when the last answer was sent; may abort the call.
    """
    kind = ("stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary")
    behaviour = getattr(handler, "_".join(kind))

    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        async with around(request, context):
            return await behaviour(request, context)

    async def answers(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        async with around(request, context):
            async for each in each_of(behaviour(request, context)):
                yield each

    make = getattr(grpc, f"{'_'.join(kind)}_rpc_method_handler")
    return make(
        answers if handler.response_streaming else answer,
        handler.request_deserializer,
        handler.response_serializer,
    )


async def each_of(answers: Any) -> AsyncIterator[Any]:
    """The answers of a streaming behaviour; none from one that writes them itself, as gRPC's own services do."""
    if inspect.isawaitable(answers):
        await answers
        return
    async for each in answers:
        yield each
