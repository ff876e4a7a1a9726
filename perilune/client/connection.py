"""Shared by the clients: a channel that retries, credentials, a deadline for every call, Perilune's own errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Self, TypeVar

import grpc

from perilune.channel import RETRYING_OPTIONS, Credentials
from perilune.errors import PeriluneError, UnavailableError, error_from_rpc

DEADLINE_S = 30.0

Q = TypeVar("Q")
A = TypeVar("A")


class Connection:
    """A channel to one service; close it, or use it as a context manager. Safe to share between threads."""

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        """Connects at the first call, to `host:port`; every call ends within `deadline_s`, retries included.

        The credentials (token, TLS) come from PERILUNE_TOKEN, PERILUNE_TLS_CA and so on if they are not given.
        """
        self.address = address
        self.deadline_s = deadline_s
        credentials = credentials or Credentials()
        self._metadata = _metadata(credentials)
        secure = credentials.channel_credentials()
        self._channel = (
            grpc.secure_channel(address, secure, options=RETRYING_OPTIONS)
            if secure
            else grpc.insecure_channel(address, options=RETRYING_OPTIONS)
        )

    def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: grpc.UnaryUnaryMultiCallable[Q, A], request: Q, deadline_s: float | None = None) -> A:
        try:
            return method(request, timeout=deadline_s or self.deadline_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _error(error, self.address) from error

    def _stream(
        self, method: grpc.UnaryStreamMultiCallable[Q, A], request: Q, deadline_s: float | None = None
    ) -> Iterator[A]:
        answers = method(request, timeout=deadline_s, metadata=self._metadata)
        try:
            yield from answers
        except grpc.RpcError as error:
            raise _error(error, self.address) from error
        finally:
            answers.cancel()


class AsyncConnection:
    """A channel to one service; close it, or use it as an async context manager. Belongs to one event loop."""

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        """See Connection."""
        self.address = address
        self.deadline_s = deadline_s
        credentials = credentials or Credentials()
        self._metadata = _metadata(credentials)
        secure = credentials.channel_credentials()
        self._channel = (
            grpc.aio.secure_channel(address, secure, options=RETRYING_OPTIONS)
            if secure
            else grpc.aio.insecure_channel(address, options=RETRYING_OPTIONS)
        )

    async def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q, deadline_s: float | None = None
    ) -> A:
        try:
            return await method(request, timeout=deadline_s or self.deadline_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _error(error, self.address) from error

    async def _stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Q, A], request: Q, deadline_s: float | None = None
    ) -> AsyncIterator[A]:
        answers = method(request, timeout=deadline_s, metadata=self._metadata)
        try:
            async for answer in answers:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _error(error, self.address) from error
        finally:
            answers.cancel()


def _metadata(credentials: Credentials) -> tuple[tuple[str, str], ...]:
    authorization = credentials.authorization()
    return (("authorization", authorization),) if authorization else ()


def _error(error: grpc.RpcError, address: str) -> PeriluneError:
    found = error_from_rpc(error)
    return UnavailableError(f"{address} does not answer: {found}") if isinstance(found, UnavailableError) else found
