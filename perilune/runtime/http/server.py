"""The HTTP server: routes, documentation page, TLS, and its life beside the gRPC server's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import uvicorn
from google.protobuf.descriptor import ServiceDescriptor
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from perilune.errors import InvalidInputError
from perilune.runtime.auth import Gate
from perilune.runtime.http.face import Endpoint, methods_of
from perilune.runtime.http.guard import guarded_protocol
from perilune.runtime.http.openapi import describe
from perilune.runtime.http.origin import SameOrigin
from perilune.runtime.http.problems import RpcAborted, problem_response
from perilune.runtime.service import Service, ServiceSettings, is_loopback, reachable_name

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="assets/favicon-32x32.png"><link rel="stylesheet" href="assets/swagger-ui.css"></head>
<body><div id="page"></div><script src="assets/swagger-ui-bundle.js"></script><script src="start.js"></script></body>
</html>
"""
_START = """SwaggerUIBundle({url: "../openapi.json", dom_id: "#page", tryItOutEnabled: true});
"""
# The page loads what this server sends, and talks to this server alone.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)


@contextlib.asynccontextmanager
async def serve_http(
    service: Service, servicers: Mapping[ServiceDescriptor, object], routes: Sequence[BaseRoute] = ()
) -> AsyncIterator[None]:
    """Serves servicers over HTTP while the block runs, if the settings say where (PERILUNE_HTTP_LISTEN); sets
    `service.http_address`.

    The servicers are those of the gRPC server: call it after `service.listen`. `routes` are added to theirs, for
    callers with a format of their own.

    Raises:
        InvalidInputError: the port is taken, or open to others without authentication.
    """
    settings = service.settings
    if settings.http_listen is None:
        yield
        return
    service.check_exposure(settings.http_listen)
    host, _, port = settings.http_listen.rpartition(":")
    app: ASGIApp = application(f"Perilune {service.name}", servicers, service.gate, routes)
    hosts = None if service.gate else {reachable_name(host).lower(), *settings.http_hosts}
    app = SameOrigin(app, loopback_only=is_loopback(host) and service.gate is None, hosts=hosts)
    with _bind(host, port) as listener:
        server = _Server(_config(app, settings))
        running = asyncio.create_task(server.serve([listener]))
        scheme = "https" if settings.tls_cert else "http"
        service.http_address = f"{scheme}://{host}:{listener.getsockname()[1]}"
        try:
            yield
        finally:
            server.should_exit = True
            await running


def application(
    title: str, servicers: Mapping[ServiceDescriptor, object], gate: Gate | None, routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """The ASGI application: a route for each method, `/openapi.json`, a page to try it out at `/docs/`, `/healthz`."""
    methods = methods_of(servicers)
    document = describe(title, methods, with_auth=gate is not None)
    return Starlette(
        routes=[
            *(Route(method.path, Endpoint(method, gate), methods=method.http_methods) for method in methods),
            *routes,
            Route("/openapi.json", _constant(JSONResponse(document))),
            Route("/healthz", _constant(PlainTextResponse("ok\n"))),
            Route("/", _constant(RedirectResponse("docs/"))),
            Route(
                "/docs/", _constant(HTMLResponse(_PAGE.format(title=title), 200, {"content-security-policy": _POLICY}))
            ),
            Route("/docs/start.js", _constant(Response(_START, media_type="text/javascript"))),
            Mount("/docs/assets", StaticFiles(packages=[("swagger_ui", "static")])),
        ],
        exception_handlers={HTTPException: _problem},
    )


def _constant(response: Response) -> Any:
    async def answer(request: Request) -> Response:
        return response

    return answer


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = grpc.StatusCode.NOT_FOUND if error.status_code == 404 else grpc.StatusCode.UNIMPLEMENTED
    details = f"{error.detail}: {request.method} {request.url.path}; /docs/ lists what there is"
    response = problem_response(RpcAborted(code, details, http_status=error.status_code))
    response.headers.update(error.headers or {})
    return response


def _bind(host: str, port: str) -> socket.socket:
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"HTTP cannot listen on {host}:{port} ({error}); give HOST:PORT in PERILUNE_HTTP_LISTEN "
            "(port 0 takes any free one)"
        ) from error


def _config(app: ASGIApp, settings: ServiceSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=guarded_protocol(settings.max_request_mb << 20),
        backlog=128,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=str(settings.tls_client_ca) if settings.tls_client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
    )


class _Server(uvicorn.Server):
    """A server that leaves signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield
