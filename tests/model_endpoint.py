"""A small HTTP server that answers chat completions as a model's endpoint would."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], tuple[int, Any]]
"""From a request's body to a status, and a text for a chat completion, or another document."""


@contextlib.contextmanager
def served(reply: Reply) -> Iterator[str]:
    """The URL of an endpoint that replies so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # of /models
            self._answer(200, json.dumps({"data": [{"id": "small"}]}).encode())

        def do_POST(self) -> None:
            status, said = reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            if isinstance(said, str) and status == 200:
                said = {"choices": [{"message": {"role": "assistant", "content": said}}]}
            self._answer(status, said if isinstance(said, bytes) else json.dumps(said).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
