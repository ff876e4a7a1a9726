"""Images by URL, from hosts that the operator of a service names: no other is asked, and no private network.

A caller's URL would have this machine open a connection, so by default it is refused. Of an allowed host the name is
resolved once, its address must be public, and the connection goes to that very address. Redirects may lead to allowed
hosts alone. A host that is named as an address, such as 10.0.0.7, is allowed as such.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Collection
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, urljoin, urlsplit

from perilune.images.reading import LIMITS, InvalidImageError
from perilune.images.sources import Fetch

TIMEOUT_S = 10.0  # for an image, redirects and all
MAX_REDIRECTS = 3
_CHUNK_BYTES = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)


def fetch_from(hosts: Collection[str], timeout_s: float = TIMEOUT_S) -> Fetch | None:
    """Fetches from these hosts; None if there are none."""
    return partial(fetch_image, hosts=frozenset(map(str.lower, hosts)), timeout_s=timeout_s) if hosts else None


def fetch_image(url: str, where: str, hosts: Collection[str], timeout_s: float = TIMEOUT_S) -> bytes:
    """The bytes behind a URL.

    Args:
        url: http or https.
        where: the image in words, for errors.
        hosts: the names that may be asked, in lower case, each with a port where it is not the usual one.
        timeout_s: for all of it.

    Raises:
        InvalidImageError: the URL or what it redirects to is not allowed, or the image does not come in time, or is too
            large.
    """
    deadline = time.monotonic() + timeout_s
    for _ in range(MAX_REDIRECTS + 1):
        parts = _allowed(url, where, hosts)
        try:
            found = _get(parts, where, deadline)
        except (OSError, HTTPException, ValueError) as error:
            raise _refused(url, where, f"it does not come: {error or type(error).__name__}") from error
        if isinstance(found, bytes):
            return found
        url = urljoin(url, found)
    raise _refused(url, where, f"it is behind more than {MAX_REDIRECTS} redirects")


def _allowed(url: str, where: str, hosts: Collection[str]) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(url, where, f"it is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise _refused(url, where, "it must be http(s)://HOST/…, without a name and a password")
    named = parts.hostname if port is None else f"{parts.hostname}:{port}"
    if named not in hosts:
        raise _refused(url, where, f"its host {named} is none of PERILUNE_IMAGE_HOSTS: {', '.join(sorted(hosts))}")
    return parts


def _get(parts: SplitResult, where: str, deadline: float) -> bytes | str:
    """The bytes of an answer, or where it redirects to."""
    connection = _connected(parts, where, deadline)
    try:
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        connection.request("GET", target, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
        answer = connection.getresponse()
        if answer.status in _REDIRECTS:
            return answer.headers.get("Location", "")
        if answer.status != 200:
            raise OSError(f"the answer is {answer.status} {answer.reason}")
        return _read(answer, connection, where, deadline)
    finally:
        connection.close()


def _read(answer: HTTPResponse, connection: HTTPConnection, where: str, deadline: float) -> bytes:
    data = bytearray()
    while chunk := answer.read1(_CHUNK_BYTES):
        data += chunk
        if len(data) > LIMITS.max_bytes:
            raise InvalidImageError(f"{where} has more than {LIMITS.max_bytes:,} bytes", "too many bytes")
        if connection.sock:
            connection.sock.settimeout(_left(deadline))
    return bytes(data)


def _connected(parts: SplitResult, where: str, deadline: float) -> HTTPConnection:
    """A connection to the address that was looked at: a name that resolves otherwise a moment later changes nothing."""
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _address(host, port)
    sock = socket.create_connection((address, port), _left(deadline))
    if parts.scheme == "https":
        sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
    connection = (HTTPSConnection if parts.scheme == "https" else HTTPConnection)(host, port)
    connection.sock = sock
    return connection


def _address(host: str, port: int) -> str:
    """The address of a host. OSError: it has none, or one of a private network that was not named itself."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    found = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    if not ipaddress.ip_address(found).is_global:
        raise OSError(f"{host} is {found}, an address of a private network: name the address itself to allow it")
    return found


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left


def _refused(url: str, where: str, why: str) -> InvalidImageError:
    return InvalidImageError(f"{where}: {url:.80} is not fetched: {why}", "url")
