"""SandboxFusion's method, reimplemented as a peer for benchmarks/sandbox.py: its server is not on any package index.

What its `/run_code` does for Python with `isolation: none`, by its public source (github.com/bytedance/SandboxFusion,
sandbox/runners): a temporary folder, the program as a file in it, `bash -c "python FILE"` in a session of its own with
pipes, at most a megabyte of each stream kept, the process group killed, the folder removed. Its request validation and
logging are left out, which is in its favour.

    python -m benchmarks.peers.sandbox_fusion PYTHON_COMMAND...     # prints its port
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_KEPT_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16


async def run_code(request: Request) -> JSONResponse:
    """`{"code", "stdin"?, "run_timeout"?}` → `{"status", "run_result"}`."""
    asked = await request.json()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".py", delete=False) as file:
            file.write(asked["code"])
        command = f"{' '.join(sys.argv[1:])} {file.name}"
        result = await _run(command, asked.get("stdin"), folder, asked.get("run_timeout", 10))
    done = result["status"] == "Finished" and result["return_code"] == 0
    return JSONResponse({"status": "Success" if done else "Failed", "run_result": result})


async def _run(command: str, stdin: str | None, folder: str, timeout_s: float) -> dict[str, Any]:
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        executable="/bin/bash",
        env=dict(os.environ),
        start_new_session=True,
        preexec_fn=lambda: None,  # there always is one
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    began = time.time()
    kept = bytearray(), bytearray()
    work = asyncio.gather(
        _write(process.stdin, stdin), _drain(process.stdout, kept[0]), _drain(process.stderr, kept[1]), process.wait()
    )
    try:
        await asyncio.wait_for(work, timeout_s)
        status = "Finished"
    except TimeoutError:
        status = "TimeLimitExceeded"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    stdout, stderr = (stream.decode("utf-8", "replace") for stream in kept)
    return {
        "status": status,
        "execution_time": time.time() - began,
        "return_code": process.returncode,
        "stdout": stdout,
        "stderr": stderr,
    }


async def _write(stream: asyncio.StreamWriter, stdin: str | None) -> None:
    with contextlib.suppress(ConnectionError):
        stream.write((stdin or "").encode())
        await stream.drain()
    stream.close()


async def _drain(stream: asyncio.StreamReader, kept: bytearray) -> None:
    while chunk := await stream.read(_CHUNK_BYTES):
        kept += chunk[: _KEPT_BYTES - len(kept)]


def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    app = Starlette(routes=[Route("/run_code", run_code, methods=["POST"])])
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
