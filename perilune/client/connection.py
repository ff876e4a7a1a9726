"""What the clients share: a channel that tries again, a deadline for every call, Perilune's own errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Self, TypeVar

import grpc

from perilune.channel import RETRYING_OPTIONS
from perilune.errors import PeriluneError, UnavailableError, error_from_rpc

DEADLINE_S = 30.0

Q = TypeVar("Q")
A = TypeVar("A")


class Connection:
    """A channel to one service; close it, or use it as a context manager. Safe to share between threads."""

    def __init__(self, address: str, deadline_s: float = DEADLINE_S) -> None:
        """Connects at the first call, to `host:port`; every call ends within `deadline_s`, retries included."""
        self.address = address
        self.deadline_s = deadline_s
        self._channel = grpc.insecure_channel(address, options=RETRYING_OPTIONS)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: grpc.UnaryUnaryMultiCallable[Q, A], request: Q, deadline_s: float | None = None) -> A:
        try:
            return method(request, timeout=deadline_s or self.deadline_s)
        except grpc.RpcError as error:
            raise _error(error, self.address) from error

    def _stream(self, method: grpc.UnaryStreamMultiCallable[Q, A], request: Q) -> Iterator[A]:
        answers = method(request)
        try:
            yield from answers
        except grpc.RpcError as error:
            raise _error(error, self.address) from error
        finally:
            answers.cancel()


class AsyncConnection:
    """A channel to one service; close it, or use it as an async context manager. Belongs to one event loop."""

    def __init__(self, address: str, deadline_s: float = DEADLINE_S) -> None:
        """Connects at the first call, to `host:port`; every call ends within `deadline_s`, retries included."""
        self.address = address
        self.deadline_s = deadline_s
        self._channel = grpc.aio.insecure_channel(address, options=RETRYING_OPTIONS)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q, deadline_s: float | None = None
    ) -> A:
        try:
            return await method(request, timeout=deadline_s or self.deadline_s)
        except grpc.aio.AioRpcError as error:
            raise _error(error, self.address) from error

    async def _stream(self, method: grpc.aio.UnaryStreamMultiCallable[Q, A], request: Q) -> AsyncIterator[A]:
        answers = method(request)
        try:
            async for answer in answers:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _error(error, self.address) from error
        finally:
            answers.cancel()


def _error(error: grpc.RpcError, address: str) -> PeriluneError:
    found = error_from_rpc(error)
    return UnavailableError(f"{address} does not answer: {found}") if isinstance(found, UnavailableError) else found
