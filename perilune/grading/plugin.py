"""A custom grader as a plug-in: one function, served to the reward service from a process of its own.

    from perilune.grading.plugin import serve_grader

    def polite(question: str, reference: str, response: str, word: str = "please") -> float:
        '''1 if the response says please.'''
        return float(word in response.lower())

    serve_grader(polite, version="1", listen="127.0.0.1:7100")

The reward service takes it up with PERILUNE_PLUGINS='{"polite": "127.0.0.1:7100"}', or a recipe names it:
`plugin = "127.0.0.1:7100"`, or `plugin = "graders.py:polite"` for `perilune train` to serve the function.

    python -m perilune.grading.plugin FILE.py:FUNCTION [--listen HOST:PORT] [--name NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from perilune.api.reward.v1 import grader_pb2
from perilune.api.reward.v1.grader_pb2 import DescribeRequest, DescribeResponse, GradeRequest, GradeResponse
from perilune.api.reward.v1.grader_pb2_grpc import GraderServiceServicer, add_GraderServiceServicer_to_server
from perilune.api.reward.v1.reward_pb2 import GraderInfo
from perilune.channel import GRPC_OPTIONS
from perilune.errors import InvalidInputError, PeriluneError, rpc_errors
from perilune.recipe.needs import function_of

# A value, nothing where it could not decide, or either with evidence.
Graded = float | None | tuple[float | None, Mapping[str, str]]
GradeFunction = Callable[..., Graded | Awaitable[Graded]]

_LOOPBACK = ("127.", "localhost:", "[::1]", "unix:")
_GIVEN = ("question", "reference", "response", "conversation", "images")


def serve_grader(function: GradeFunction, version: str, listen: str = "127.0.0.1:0", name: str = "") -> None:
    """Serves a function as a grader until the process is stopped. InvalidInputError if the port is taken."""

    async def serve() -> None:
        server, address = await start_grader(function, version, listen, name)
        print(f"{name or function.__name__} answers at {address}", flush=True)
        await server.wait_for_termination()

    asyncio.run(serve())


async def start_grader(
    function: GradeFunction, version: str, listen: str = "127.0.0.1:0", name: str = ""
) -> tuple[grpc.aio.Server, str]:
    """Starts serving a function in this event loop; returns the server, and where it answers.

    Args:
        function: takes any of `question`, `reference`, `response`, `conversation` and `images` by these names, and its
            options, which are text, by theirs. It returns a value, None where it cannot decide, or either with
            evidence. It raises InvalidInputError for what it cannot grade, and UnavailableError for what may work
            later. A coroutine runs in this loop, others in threads.
        listen: beyond loopback it asks who calls as every service does, or says in words that it does not
            (PERILUNE_TOKENS_FILE, PERILUNE_TLS_CERT, PERILUNE_ALLOW_UNAUTHENTICATED).
        version: raise it whenever the same input may get another value.
    """
    servicer = GraderServicer(function, version, name or function.__name__)
    if not listen.startswith(_LOOPBACK):
        return await _start_behind_gate(servicer, listen)
    server = grpc.aio.server(options=GRPC_OPTIONS)
    add_GraderServiceServicer_to_server(servicer, server)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise InvalidInputError(f"cannot listen on {listen}: the port is in use or not ours") from error
    await server.start()
    return server, f"{listen.rpartition(':')[0]}:{port}"


async def _start_behind_gate(servicer: GraderServicer, listen: str) -> tuple[grpc.aio.Server, str]:
    """Beyond loopback a plug-in is a service as the others: by PERILUNE_TOKENS_FILE, PERILUNE_TLS_CERT and so on."""
    from perilune.runtime.service import Service, ServiceSettings  # which the smallest installation does not need

    service = Service("grader", ServiceSettings(listen=listen))
    add_GraderServiceServicer_to_server(servicer, service.server)
    await service.listen([grader_pb2.DESCRIPTOR.services_by_name["GraderService"]])
    await service.ready()
    return service.server, service.address


class GraderServicer(GraderServiceServicer):
    """A function as GraderService; see `start_grader`."""

    def __init__(self, function: GradeFunction, version: str, name: str) -> None:
        self._function = function
        self._version = version
        self._name = name
        self._parameters = inspect.signature(function).parameters

    async def Describe(self, request: DescribeRequest, context: Any) -> DescribeResponse:
        """Answers with the function's docstring and its options."""
        options = {
            key: "required" if parameter.default is parameter.empty else f"(default: {parameter.default!r})"
            for key, parameter in self._parameters.items()
            if key not in _GIVEN
        }
        description = inspect.getdoc(self._function) or ""
        return DescribeResponse(
            grader=GraderInfo(name=self._name, version=self._version, description=description, options=options)
        )

    async def Grade(self, request: GradeRequest, context: Any) -> GradeResponse:
        """Answers with the function's value and evidence; what it raises becomes the call's error."""
        async with rpc_errors(context):
            graded = await self._call(request)
            value, evidence = graded if isinstance(graded, tuple) else (graded, {})
            return GradeResponse(value=value, evidence=evidence, version=self._version)

    async def _call(self, request: GradeRequest) -> Graded:
        given = {key: getattr(request, key) for key in _GIVEN if key in self._parameters}
        try:
            inspect.signature(self._function).bind(**given, **request.options)
        except TypeError as error:
            raise InvalidInputError(f"grader {self._name!r}: {error}") from error
        if inspect.iscoroutinefunction(self._function):
            return await self._function(**given, **request.options)
        return await asyncio.to_thread(self._function, **given, **request.options)  # type: ignore[arg-type]


def load_function(place: str) -> tuple[GradeFunction, str]:
    """The function that FILE.py:FUNCTION names, and a digest of the file as its version. InvalidInputError if none."""
    named = function_of(place)
    if named is None:
        raise InvalidInputError(f"{place!r} names no function: write FILE.py:FUNCTION")
    file, name = Path(named[0]), named[1]
    try:
        version = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise InvalidInputError(f"cannot read {file}: {error.strerror}") from error
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))  # for what lies beside it
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise InvalidInputError(f"{file} has no function {name!r}")
    return function, version


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves FILE.py:FUNCTION; the exit status is 2 where that cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m perilune.grading.plugin", description="Serve a function as a grader."
    )
    parser.add_argument("place", metavar="FILE.py:FUNCTION")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--name", default="", help="of the grader; the function's, if not given")
    given = parser.parse_args(arguments)
    try:
        function, version = load_function(given.place)
        serve_grader(function, version, given.listen, given.name)
    except PeriluneError as error:
        print(f"perilune.grading.plugin: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
