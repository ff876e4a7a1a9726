"""A service's log: its format, and a limit on repetitions."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

REPEAT_S = 10.0
MAX_REMEMBERED = 256  # kinds of complaint


class Sparing(logging.Filter):
    """Lets a complaint through once in a while, with how often it came meanwhile.

    A library may complain thousands of times a second, with a trace each, as asyncio does where no descriptor is left.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when last, and how often since

    def filter(self, record: logging.LogRecord) -> bool:
        """Decides whether to write a record. All are of one kind whose message begins with the same line."""
        kind, now = (record.name, str(record.msg).partition("\n")[0]), self._clock()
        said_at, num_since = self._said.get(kind, (-REPEAT_S, 0))
        if now - said_at < REPEAT_S:
            self._said[kind] = said_at, num_since + 1
            return False
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()
        self._said[kind] = now, 0
        if num_since:
            record.msg = f"{record.getMessage()} ({num_since} times more in the last {now - said_at:.0f} s)"
            record.args = ()
        return True


# The user and password, or the token, in a URL; and what a query says of them.
_IN_URLS = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/'\"]*@|([?&](?:password|passwd|token|secret)=)[^&\s'\"]+")


def without_secrets(text: str) -> str:
    """A text whose URLs say neither user nor password."""
    return _IN_URLS.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)


class Discreet(logging.Formatter):
    """Formats records, traces included, without the secrets of URLs."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines, of a record."""
        return without_secrets(super().format(record))


def set_up(name: str) -> None:
    """Begins a service's log on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet(f"%(asctime)s %(levelname).1s {name} %(name)s: %(message)s"))
    logging.basicConfig(level="INFO", handlers=[handler])
    # gRPC's forks and cancelled streams are no news.
    logging.getLogger("grpc").setLevel(logging.ERROR)
    sparing = Sparing()
    for library in ("asyncio", "uvicorn.error", "grpc._cython.cygrpc", "perilune.runtime.http.face"):
        logging.getLogger(library).addFilter(sparing)
