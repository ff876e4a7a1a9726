"""gRPC channels between services, and from clients: message limits, keepalive, and what is tried again."""

from __future__ import annotations

import json
from typing import Any

import grpc

MAX_MESSAGE_BYTES = 64 << 20
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
]

# For clients: every RPC of theirs is safe to retry. A stream is retried until its first message.
_RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
RETRYING_OPTIONS = [
    *GRPC_OPTIONS,
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": _RETRY}]})),
]


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to another service, with this project's message limits and keepalive."""
    return grpc.aio.insecure_channel(address, options=GRPC_OPTIONS)
