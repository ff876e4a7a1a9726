"""Failures over HTTP: problem documents (RFC 9457) that carry the gRPC code."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import grpc
from starlette.responses import JSONResponse, Response

from perilune.errors import RETRY_AFTER

MEDIA_TYPE = "application/problem+json"

# As google.rpc.Code documents it.
HTTP_STATUS: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.CANCELLED: 499,  # the caller left and does not read it
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


class RpcAborted(grpc.aio.AbortError):
    """A call that ends with a status, as `context.abort` raises it; `http_status` where HTTP has a closer one."""

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str,
        trailers: tuple[tuple[str, str | bytes], ...] = (),
        http_status: int | None = None,
    ) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.http_status = http_status or HTTP_STATUS[code]
        self.retry_after_ms = next((int(value) for key, value in trailers if key == RETRY_AFTER), None)


def problem_of(error: RpcAborted) -> dict[str, Any]:
    """The members of the problem document."""
    title = HTTPStatus(error.http_status).phrase if error.http_status in set(HTTPStatus) else "Client Closed Request"
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": error.http_status,
        "detail": error.details,
        "code": error.code.name,
    }
    if error.retry_after_ms is not None:
        problem["retryAfterMs"] = error.retry_after_ms
    return problem


def problem_response(error: RpcAborted) -> Response:
    """The problem document as a response, with the headers that its status asks for."""
    headers = {}
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = 'Bearer realm="perilune"'
    if error.retry_after_ms is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_ms / 1000))
    return JSONResponse(problem_of(error), error.http_status, headers, MEDIA_TYPE)
