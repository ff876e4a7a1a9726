"""gRPC channels between services, and from clients: message limits, keepalive, what is tried again, and who calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from perilune.errors import InvalidInputError
from perilune.settings import Settings

MAX_MESSAGE_BYTES = 64 << 20
MAX_CALLS = 10_000  # under way at one time in a service; a worker's membership of the fleet is one
GRPC_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # two services on one port is a mistake, not a cluster
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # a server forgives what our clients do
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),  # a restarted service may have another address
    # Weights come in chunks of a MiB: the default frames of 16 KiB cost a fifth more of both sides' processors.
    ("grpc.http2.max_frame_size", 4 << 20),
    ("grpc.http2.lookahead_bytes", 16 << 20),
]


def server_options(max_request_bytes: int) -> list[tuple[str, Any]]:
    """The options of a service's server: it reads requests of that size at most, and keeps no silent connection."""
    # Nothing is read ahead of what is asked for: that is for weights, which clients receive.
    replaced = ("grpc.http2.lookahead_bytes", "grpc.max_receive_message_length")
    return [
        *(option for option in GRPC_OPTIONS if option[0] not in replaced),
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.server_handshake_timeout_ms", 5_000),  # for TLS and HTTP/2's settings
        ("grpc.max_connection_idle_ms", 300_000),  # without a call; a client of ours connects again by itself
        ("grpc.max_concurrent_streams", MAX_CALLS),  # on one connection
    ]


# For clients: every RPC of theirs is safe to retry. A stream is retried until its first message. A service that is full
# says how long to wait, and gRPC waits so long.
_RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
}
RETRYING_OPTIONS = [
    *GRPC_OPTIONS,
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": _RETRY}]})),
]


class Credentials(Settings):
    """This process's credentials and trust anchors; from PERILUNE_TOKEN, PERILUNE_TLS_CA and so on where not given."""

    model_config = SettingsConfigDict(env_prefix="PERILUNE_")

    token: SecretStr = SecretStr("")  # shown to the services that this process calls
    token_file: Path | None = None  # the same, where it lies in a file
    nats_password_file: Path | None = None  # of the user that PERILUNE_NATS_URL names
    tls_ca: Path | None = None  # calls go over TLS, to services with a certificate of these authorities (PEM)
    tls_server_name: str | None = None  # the name in services' certificates, where addresses are no names (containers)
    tls_cert: Path | None = None  # this process's own certificate (PEM), as a server and, where asked for, as a client
    tls_key: Path | None = None  # its private key (PEM)

    def authorization(self) -> str:
        """The header's value; empty without a token. InvalidInputError if its file cannot be read."""
        token = self.token.get_secret_value()
        if self.token_file and not token:
            token = read_secret(self.token_file, "PERILUNE_TOKEN_FILE")
        return f"Bearer {token}" if token else ""

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """TLS for a channel; None for plain text. InvalidInputError if a file cannot be read."""
        if self.tls_ca is None:
            return None
        key, cert = read_pem(self.tls_key), read_pem(self.tls_cert)
        return grpc.ssl_channel_credentials(read_pem(self.tls_ca), key, cert)


def read_secret(path: Path, setting: str) -> str:
    """Reads a file of one secret. InvalidInputError, with the setting's name, if there is nothing to read."""
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{setting}: {path} cannot be read: {error}") from error
    if not secret or len(secret.split()) > 1:
        raise InvalidInputError(f"{setting}: {path} holds {'no' if not secret else 'more than one'} secret")
    return secret


def refusal(error: grpc.RpcError, address: str) -> InvalidInputError | None:
    """The setting for which a service rejects this client, if it does; a retry would not help."""
    details = error.details() or ""
    if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return InvalidInputError(
            f"{address} rejects the call: {details}; look at PERILUNE_TOKEN_FILE or PERILUNE_TOKEN"
        )
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return InvalidInputError(
            f"the certificate of {address} is not of an authority, or not for a name, that we trust: {details}; "
            "look at PERILUNE_TLS_CA"
        )
    return None


def read_pem(path: Path | None) -> bytes | None:
    """A file of certificates or a key. InvalidInputError if there is none to read."""
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"the certificate or key {path} cannot be read: {error.strerror}") from error
    if b"-----BEGIN" not in data:
        raise InvalidInputError(f"{path} holds no certificate or key in PEM form (-----BEGIN …)")
    return data


def open_channel(address: str, options: list[tuple[str, Any]] = GRPC_OPTIONS) -> grpc.aio.Channel:
    """A channel to another service: this project's limits and keepalive, and this process's token and certificate."""
    credentials = Credentials()
    secure = credentials.channel_credentials()
    interceptors = _token_senders(credentials.authorization())
    if secure:
        if credentials.tls_server_name:
            options = [*options, ("grpc.ssl_target_name_override", credentials.tls_server_name)]
        return grpc.aio.secure_channel(address, secure, options, interceptors=interceptors)
    return grpc.aio.insecure_channel(address, options, interceptors=interceptors)


def _token_senders(authorization: str) -> list[grpc.aio.ClientInterceptor]:
    """gRPC sends tokens of its own accord over TLS only; in a cluster TLS may end elsewhere. One for each kind of
    method, for a channel takes an interceptor for the first kind that it is."""
    if not authorization:
        return []

    async def intercept(
        self: object, proceed: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        metadata = details.metadata or grpc.aio.Metadata()
        metadata.add("authorization", authorization)
        authorized = grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        return await proceed(authorized, request)

    kinds = {
        grpc.aio.UnaryUnaryClientInterceptor: "intercept_unary_unary",
        grpc.aio.UnaryStreamClientInterceptor: "intercept_unary_stream",
        grpc.aio.StreamUnaryClientInterceptor: "intercept_stream_unary",
        grpc.aio.StreamStreamClientInterceptor: "intercept_stream_stream",
    }
    return [type("SendToken", (kind,), {method: intercept})() for kind, method in kinds.items()]
