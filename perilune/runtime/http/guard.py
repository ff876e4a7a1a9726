"""Says what a connection may take of an HTTP server before it has asked for anything: time, and a descriptor.

A caller that sends its request slowly, or never, or does not read the answer, is disconnected in time. Where too many
are connected, the one that has kept the server waiting longest makes room for the next: every caller is answered.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0  # for the head of a request, once the connection is there or the last answer is sent
BODY_S = 120.0  # for its body
READING_S = 60.0  # for a caller to take what lies ready for it
MAX_CONNECTIONS = 1000

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n"
    b"connection: close\r\n\r\n"
    b'{"type": "about:blank", "title": "Service Unavailable", "status": 503, "code": "UNAVAILABLE", '
    b'"detail": "the service has as many connections as it can hold"}\n'
)


def max_connections() -> int:
    """Connections of one server: half of the descriptors that the process may have, for it needs some itself."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, descriptors // 2)


class GuardedProtocol(H11Protocol):
    """One connection. It tells the application whose certificate TLS has verified, and how large a body may be."""

    max_request_bytes = 0
    waiting: dict[GuardedProtocol, None]  # connections of this server that owe it a request, the oldest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Notes the caller's certificate and starts the connection's deadline."""
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert") or {}
        subject = [pair for part in certificate.get("subject", ()) for pair in part]
        names = [name for key, name in subject if key == "commonName"]
        self.app_state = {
            **self.app_state,
            "certificate_names": names,
            "max_request_bytes": self.max_request_bytes,
        }
        self._phase: Any = None
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        if len(self.connections) > max_connections() and not self._make_room():
            transport.write(_FULL)
            transport.close()
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        """Reads bytes and sets the deadline again."""
        super().data_received(data)
        self._set_deadline()

    def on_response_complete(self) -> None:
        """Ends a response and sets the deadline again."""
        super().on_response_complete()
        self._set_deadline()

    def pause_writing(self) -> None:
        """Aborts the connection if its client does not read for READING_S."""
        super().pause_writing()
        self._unread = self.loop.call_later(READING_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancels the abort: the client reads again."""
        super().resume_writing()
        if self._unread:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the connection's timers."""
        super().connection_lost(exc)
        for timer in (self._deadline, self._unread):
            if timer:
                timer.cancel()
        self.waiting.pop(self, None)

    def _set_deadline(self) -> None:
        """Gives the caller until then to send what it owes; bytes that come one by one earn it no more."""
        phase = self.conn.their_state
        if phase is self._phase:
            return
        self._phase = phase
        if self._deadline:
            self._deadline.cancel()
        self.waiting.pop(self, None)
        seconds = {h11.IDLE: HEAD_S, h11.SEND_BODY: BODY_S}.get(phase)
        self._deadline = self.loop.call_later(seconds, self.transport.abort) if seconds else None
        if seconds:
            self.waiting[self] = None

    def _make_room(self) -> bool:
        oldest = next(iter(self.waiting), None)
        if oldest:
            oldest.transport.abort()
            self.waiting.pop(oldest)
        return oldest is not None


def guarded_protocol(max_bytes: int) -> type[GuardedProtocol]:
    """The protocol of one server, for bodies of at most so many bytes."""

    class Protocol(GuardedProtocol):
        max_request_bytes = max_bytes
        waiting: dict[GuardedProtocol, None] = {}  # noqa: RUF012 a server's own

    return Protocol
