"""`perilune exec`: a file's program in a sandbox, as if it ran here."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TextIO

from google.protobuf.json_format import MessageToJson

from perilune.api.sandbox.v1.sandbox_pb2 import VERDICT_OK, Limits, RunResponse, Verdict
from perilune.client import AsyncSandboxClient
from perilune.errors import InvalidInputError
from perilune.local.short_lived import own_sandbox


def limits(cpu_s: float | None, wall_s: float | None, memory_mb: int | None) -> Limits:
    """Limits of the command line; what is not given is the service's default."""
    return Limits(cpu_s=cpu_s, wall_s=wall_s, memory_bytes=None if memory_mb is None else memory_mb << 20)


def run(
    file: Path,
    arguments: Sequence[str],
    language: str,
    beside: Sequence[Path],
    limits: Limits,
    image: str,
    address: str | None,
    as_json: bool,
) -> int:
    """Runs it and passes its output on; the exit status.

    InvalidInputError: a file cannot be read, or no language has its extension.
    """
    source = _text(file)
    files = {path.name: _read(path) for path in beside}
    stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()

    async def ask() -> RunResponse:
        async with _sandbox(address) as sandbox:
            name = language or await _language_of(file, sandbox)
            return await sandbox.run(
                name,
                source,
                stdin=stdin,
                arguments=arguments,
                files=files,
                limits=limits,
                image=image,
            )

    answer = asyncio.run(ask())
    if as_json:
        print(MessageToJson(answer, preserving_proto_field_name=True))
    else:
        _show(answer)
    return _status(answer)


@contextlib.asynccontextmanager
async def _sandbox(address: str | None) -> AsyncIterator[AsyncSandboxClient]:
    async with contextlib.AsyncExitStack() as stack:
        if address is None:
            address = await stack.enter_async_context(own_sandbox())
        yield await stack.enter_async_context(AsyncSandboxClient(address))


async def _language_of(file: Path, sandbox: AsyncSandboxClient) -> str:
    languages = await sandbox.languages()
    for language in languages:
        if file.suffix and file.suffix == language.extension:
            return language.name
    known = ", ".join(language.extension for language in languages)
    raise InvalidInputError(f"{file}: no language has this extension; name one with --language (known: {known})")


def _show(answer: RunResponse) -> None:
    if answer.HasField("compilation"):
        _write(sys.stderr, answer.compilation.stderr.content or answer.compilation.stdout.content)
    _write(sys.stdout, answer.execution.stdout.content)
    _write(sys.stderr, answer.execution.stderr.content)
    if answer.verdict != VERDICT_OK:
        last = answer.execution if answer.HasField("execution") else answer.compilation
        name = Verdict.Name(answer.verdict).removeprefix("VERDICT_").lower().replace("_", " ")
        print(f"perilune: {': '.join(filter(None, [name, last.reason or last.signal]))}", file=sys.stderr)


def _write(stream: TextIO, content: bytes) -> None:
    stream.buffer.write(content)

    stream.buffer.flush()


def _status(answer: RunResponse) -> int:
    if answer.HasField("execution") and answer.execution.HasField("exit_code") and answer.execution.exit_code:
        return answer.execution.exit_code
    return int(answer.verdict != VERDICT_OK)


def _text(path: Path) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error
