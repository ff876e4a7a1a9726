"""A reward service as a process of its own, with no bus: what other projects call."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[bytes]
    address: str
    http: str

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of a request; of a stream, a list of its lines."""
        all_headers = {"content-type": "application/json"} | (headers or {})
        request = urllib.request.Request(self.http + path, json.dumps(body).encode(), all_headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                lines = [json.loads(line) for line in answer.read().splitlines()]
                streams = answer.headers["content-type"] == "application/x-ndjson"
                return answer.status, lines if streams else lines[0]
        except HTTPError as error:
            return error.code, json.loads(error.read())


@contextlib.contextmanager
def reward_service(folder: Path, **settings: str) -> Iterator[Running]:
    """Starts it with PERILUNE_* settings, and waits until it answers."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    given = {
        "PERILUNE_SERVE_RUNS": "0",
        "PERILUNE_READY_FILE": str(ready),
        "PERILUNE_HTTP_LISTEN": "127.0.0.1:0",
        "PERILUNE_GRADER_PROCESSES": "1",
        "PERILUNE_GRADER_TIMEOUT_S": "1",
        "OMP_NUM_THREADS": "1",
    } | {f"PERILUNE_{key.upper()}": value for key, value in settings.items()}
    process = subprocess.Popen([sys.executable, "-m", "services.reward"], env=os.environ | given)
    try:
        while not ready.exists():
            assert process.poll() is None, "the service ended before it was ready"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        facts = json.loads(ready.read_text())
        yield Running(process, facts["address"], facts["http"])
    finally:
        process.kill()
        process.wait()
