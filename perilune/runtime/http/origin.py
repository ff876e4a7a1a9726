"""Turns away what another web site asks for through a reader's browser.

A browser lets any page send requests to any address, the reader's own machine included. What asks for a token is safe
from that; what asks for none is not, unless it looks at who sent the request, and by which name.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Collection

import grpc
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from perilune.runtime.http.problems import RpcAborted, problem_response
from perilune.runtime.service import is_loopback

# Ends of names that no site of the internet can have.
PRIVATE = (".localhost", ".local", ".internal", ".svc", ".home.arpa")


class SameOrigin:
    """Lets a request through if no other site's page sent it: its Origin, where there is one, is the host asked.

    With `loopback_only`, that host must be this machine by a name of its own: a site whose name was made to point here
    (DNS rebinding) asks for its own host, and its pages count as ours otherwise.
    """

    def __init__(self, app: ASGIApp, loopback_only: bool, hosts: Collection[str] | None = None) -> None:
        """`hosts`: names that may be asked for where no caller is asked for a token, beside those that no site can
        have; None: any."""
        self._app = app
        self._loopback_only = loopback_only
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Rejects a request of a foreign page, and passes all others on (ASGI)."""
        if scope["type"] == "http" and (reason := self.objection(Headers(scope=scope))):
            await problem_response(RpcAborted(grpc.StatusCode.PERMISSION_DENIED, reason))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def objection(self, headers: Headers) -> str | None:
        """Why a request is turned away; None if it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return f"a page of {origin} may not call {host}"
        if self._loopback_only and not is_loopback(_without_port(host)):
            return f"{host!r} is no name of this machine's loopback interface: ask for 127.0.0.1 or localhost"
        if self._hosts is not None and not may_be_asked(_without_port(host), self._hosts):
            return f"{host!r} is no name of this service: if it is, name it in PERILUNE_HTTP_HOSTS"
        return None


def may_be_asked(host: str, hosts: Collection[str]) -> bool:
    """Tests whether a host is one of these, an address, or a name that no site of the internet can have."""
    name = host.lower().rstrip(".")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name.strip("[]"))
        return True
    return bool(name) and (name in hosts or "." not in name or name.endswith(PRIVATE))


def _without_port(host: str) -> str:
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
