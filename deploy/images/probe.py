#!/usr/bin/python3 -SE
"""Asks a service for its gRPC health; exit status 0 if it serves.

Written for the standard library alone: it runs every few seconds in every container, and importing grpc would cost more
than the answer. It says what PERILUNE_LISTEN and PERILUNE_TLS_* say: one unary call of grpc.health.v1.Health/Check over
HTTP/2 (RFC 9113), with header fields that need no compression (RFC 7541 §6.2.2).
"""

import os
import socket
import ssl
import struct
import sys

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS, ACK = 1, 4, 1
SERVING = b"\x08\x01"  # HealthCheckResponse(status=SERVING)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Encodes one frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name: bytes, value: bytes) -> bytes:
    """A header field, literally and without an index."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request(scheme: bytes) -> bytes:
    """Encodes the call of Health.Check as a HEADERS and a DATA frame, without compression."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", scheme),
        (b":path", b"/grpc.health.v1.Health/Check"),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    block = b"".join(field(name, value) for name, value in fields)
    empty_message = b"\x00\x00\x00\x00\x00"
    return frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, empty_message)


def connect(host: str, port: int) -> socket.socket:
    """Opens a connection, with TLS where the service has a certificate."""
    raw = socket.create_connection((host, port), timeout=4)
    if not os.environ.get("PERILUNE_TLS_CERT"):
        return raw
    # The certificate is for the name that others call; this asks the process beside it.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if os.environ.get("PERILUNE_TLS_CLIENT_CA"):
        context.load_cert_chain(os.environ["PERILUNE_TLS_CERT"], os.environ["PERILUNE_TLS_KEY"])
    return context.wrap_socket(raw)


def is_serving(host: str, port: int) -> bool:
    """True if the service's health is SERVING. OSError: no connection."""
    with connect(host, port) as link, link.makefile("rb") as answers:
        scheme = b"https" if isinstance(link, ssl.SSLSocket) else b"http"
        link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0) + request(scheme))
        while head := answers.read(9):
            payload = answers.read(int.from_bytes(head[:3], "big"))
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            if kind == SETTINGS and not flags & ACK:
                link.sendall(frame(SETTINGS, ACK, 0))
            elif kind == DATA and stream == 1:
                return payload[5:] == SERVING
            elif kind == HEADERS and flags & END_STREAM:
                return False  # trailers alone: the call failed
    return False


def main() -> int:
    """Returns the exit status: 0 if the service serves, else 1."""
    host, _, port = os.environ.get("PERILUNE_LISTEN", "127.0.0.1:7040").rpartition(":")
    try:
        return 0 if is_serving("127.0.0.1" if host == "0.0.0.0" else host, int(port)) else 1
    except (OSError, ValueError) as error:
        print(f"no health from {host}:{port}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
