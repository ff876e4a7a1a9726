"""Says what a servicer's method sees of an HTTP call: a gRPC context."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from starlette.requests import Request

from perilune.runtime.http.problems import RpcAborted


class HttpContext(grpc.aio.ServicerContext[Any, Any]):
    """A servicer's context for one HTTP request. Its headers are the metadata; its answers are what the method returns
    or yields, and messages are not read or written by hand."""

    def __init__(self, request: Request, deadline: float | None) -> None:
        """`deadline` is on the event loop's clock."""
        self._request = request
        self._deadline = deadline
        self._trailers: tuple[tuple[str, str | bytes], ...] = ()
        self._code: grpc.StatusCode | None = None
        self._details = ""

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Sequence[tuple[str, str | bytes]] | grpc.aio.Metadata = (),
    ) -> NoReturn:
        """Ends the call with a status. RpcAborted."""
        raise RpcAborted(code, details, (*self._trailers, *tuple(trailing_metadata)))

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """Ends the call with a status. RpcAborted."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def time_remaining(self) -> float | None:  # type: ignore[override]  # gRPC has none without a deadline, too
        """Seconds until the caller's deadline; None without one."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def invocation_metadata(self) -> grpc.aio.Metadata:
        """The request's headers."""
        return grpc.aio.Metadata(*((key, value) for key, value in self._request.headers.items()))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Sets the metadata that goes with the answer."""
        self._trailers = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """The metadata that goes with the answer."""
        return self._trailers

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """HTTP's headers are sent with the first message."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Sets the status code of the answer."""
        self._code = code

    def code(self) -> grpc.StatusCode:
        """The status code of the answer; OK if none was set."""
        return self._code or grpc.StatusCode.OK

    def set_details(self, details: str) -> None:
        """Sets the message of an error."""
        self._details = details

    def details(self) -> str:
        """The message of an error."""
        return self._details

    def raise_if_failed(self) -> None:
        """Returns what `set_code` said, once the method has returned."""
        if self.code() is not grpc.StatusCode.OK:
            raise RpcAborted(self.code(), self._details, self._trailers)

    def peer(self) -> str:
        """The caller's address, as `http:HOST:PORT`."""
        client = self._request.client
        return f"http:{client.host}:{client.port}" if client else "http:"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """The common names in the caller's certificate."""
        return {"x509_common_name": [name.encode() for name in certificate_names(self._request)]}

    def peer_identities(self) -> Iterable[bytes] | None:
        """The common names in the caller's certificate."""
        return self.auth_context()["x509_common_name"]

    def peer_identity_key(self) -> str | None:
        """The key of `auth_context` that identifies the caller."""
        return "x509_common_name"

    def set_compression(self, compression: grpc.Compression) -> None:
        """HTTP's own layers compress."""

    def disable_next_message_compression(self) -> None:
        """HTTP's own layers compress."""

    def cancelled(self) -> bool:
        """False: a call whose caller left is cancelled as a task."""
        return False  # a call whose caller left is cancelled as a task

    def done(self) -> bool:
        """False: the method is still running."""
        return False

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Not supported over HTTP. NotImplementedError."""
        raise NotImplementedError("over HTTP, clean up in `finally`")

    async def read(self) -> NoReturn:
        """Not supported: streams of requests have no HTTP face. NotImplementedError."""
        raise NotImplementedError("methods that take streams have no HTTP face")

    async def write(self, message: Any) -> NoReturn:
        """Not supported: a method yields its stream. NotImplementedError."""
        raise NotImplementedError("over HTTP, a stream is what the method yields")


def certificate_names(request: Request) -> list[str]:
    """The common names in the caller's certificate, which TLS has verified."""
    return request.scope.get("state", {}).get("certificate_names", [])
