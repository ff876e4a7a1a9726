"""The connection to the NATS server: with which secrets, and what is said if there is none."""

from __future__ import annotations

import re
import ssl
from typing import Any
from urllib.parse import urlsplit

import nats
import nats.errors
from nats.aio.client import Client as NATS
from nats.aio.msg import Msg

from perilune.channel import Credentials, read_pem, read_secret
from perilune.errors import InvalidInputError, UnavailableError


class Client(NATS):
    """The library's client, but no message ends its reading.

    It decodes subjects and headers in its read loop, which a byte that is not UTF-8 would end, in silence and for good.
    """

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        readable = subject.decode(errors="backslashreplace").encode()
        return super()._build_message(sid, readable, reply, data, headers)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (ValueError, LookupError):
            return None


def secrets_for(url: str) -> dict[str, Any]:
    """Returns what the client shows to the server, and whom it trusts."""
    credentials, parts = Credentials(), urlsplit(url)
    options: dict[str, Any] = {}
    if credentials.nats_password_file and parts.username:
        password = read_secret(credentials.nats_password_file, "PERILUNE_NATS_PASSWORD_FILE")
        options |= {"user": parts.username, "password": password, "inbox_prefix": inbox_of(parts.username)}
    if parts.scheme == "tls":
        authority = read_pem(credentials.tls_ca)
        options["tls"] = ssl.create_default_context(cadata=authority.decode() if authority else None)
    return options


def inbox_of(user: str) -> str:
    """Where the answers to a user come: a server with users lets each read its own alone. A name that would be no part
    of a subject has none, and gets the one of all."""
    return f"_INBOX.{user}" if re.fullmatch(r"[A-Za-z0-9_-]+", user) else "_INBOX"


async def try_once(url: str, options: dict[str, Any]) -> None:
    """Connects once, so that a failure is raised: the connection that stays would retry for ever, whatever it is."""
    reported: list[Exception] = []

    async def on_error(error: Exception) -> None:
        reported.append(error)

    try:
        client = await nats.connect(
            url,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # the library's own loop around a closed port
            reconnect_time_wait=0,
            connect_timeout=5,
            error_cb=on_error,
            **options,
        )
        await client.close()
    except ssl.SSLCertVerificationError as error:
        raise InvalidInputError(
            f"the NATS server at {url} has no certificate that we trust: {error.verify_message}; "
            "look at PERILUNE_TLS_CA"
        ) from error
    except (OSError, TimeoutError, nats.errors.Error) as error:
        # That no server is left is the library's last word; why, it reported before.
        cause = reported[-1] if isinstance(error, nats.errors.NoServersError) and reported else error
        if "authorization" in str(cause).lower():
            raise InvalidInputError(
                f"the NATS server at {url} rejects the connection: {cause}; look at PERILUNE_NATS_URL and "
                "PERILUNE_NATS_PASSWORD_FILE"
            ) from cause
        raise UnavailableError(
            f"no NATS server answers at {url}: {cause or type(cause).__name__}; "
            "start one (`perilune serve nats`) or set PERILUNE_NATS_URL"
        ) from cause
