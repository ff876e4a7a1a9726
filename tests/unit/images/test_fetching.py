"""Images by URL: from named hosts alone, wherever a redirect leads, and never from a private network by its name."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from perilune.images import InvalidImageError, fetching
from perilune.images.fetching import fetch_from, fetch_image


class Answers(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        if self.path == "/slow":
            time.sleep(0.5)
        self.send_response(404 if self.path == "/absent" else 200)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # the client did not wait
            self.wfile.write(b"x" * 4000 if self.path == "/large" else b"an image")

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_allowed_host_is_asked_and_its_redirects_are_followed(host: str) -> None:
    fetch = fetch_from([host])
    assert fetch is not None
    assert fetch(f"http://{host}/a.png?size=1", "row 1") == b"an image"
    assert Answers.asked[-1] == "/a.png?size=1"
    assert fetch(f"http://{host}/to//a.png", "row 1") == b"an image"
    assert fetch_from([]) is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("http://example.org/a.png", "none of PERILUNE_IMAGE_HOSTS"),
        (
            "http://{host}/to/http://example.org/",
            "example.org/ is not fetched: its host example.org is none",
        ),
        ("http://{host}/to/file:///etc/passwd", "must be http"),
        ("file:///etc/passwd", "must be http"),
        ("http://name:word@{host}/a.png", "without a name and a password"),
        ("http://{host}.example.org/a.png", "no URL|none of"),
        ("http://{host}/absent", "the answer is 404"),
        ("http://[", "no URL"),
    ],
)
def test_others_are_refused_in_words(host: str, path: str, message: str) -> None:
    with pytest.raises(InvalidImageError, match=message) as raised:
        fetch_image(path.format(host=host), "row 1", {host})
    assert raised.value.fault == "url"


def test_a_name_of_a_private_network_is_refused_though_it_is_allowed(host: str) -> None:
    named = host.replace("127.0.0.1", "localhost")
    count = len(Answers.asked)
    with pytest.raises(InvalidImageError, match="an address of a private network"):
        fetch_image(f"http://{named}/a.png", "row 1", {named})
    assert len(Answers.asked) == count


def test_what_is_large_or_slow_is_left(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidImageError, match=r"does not come: .*timed out"):
        fetch_image(f"http://{host}/slow", "row 1", {host}, timeout_s=0.1)
    monkeypatch.setattr(fetching, "LIMITS", fetching.LIMITS.__class__(max_bytes=1000))
    with pytest.raises(InvalidImageError, match="more than 1,000 bytes"):
        fetch_image(f"http://{host}/large", "row 1", {host})
