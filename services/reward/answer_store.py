"""Answers that came with an idempotency key, and their scores: so that each is graded once, and can be graded again by
a newer grader. In memory, or in a file that outlives the service."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from weakref import WeakValueDictionary

from perilune.api.reward.v1.reward_pb2 import Score, ScoredAnswer, ScoreRequest
from perilune.errors import AlreadyExistsError, InvalidInputError

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
  number INTEGER PRIMARY KEY,
  owner TEXT NOT NULL, key TEXT NOT NULL,
  request BLOB NOT NULL, score BLOB NOT NULL,
  UNIQUE (owner, key)
)"""
_SIZE = "length(request) + length(score)"


class KeptAnswers:
    """Answers by owner and key; the oldest are forgotten when they take more than `max_bytes`."""

    def __init__(self, path: Path | None, max_bytes: int) -> None:
        """InvalidInputError if the file cannot be opened."""
        self._max_bytes = max_bytes
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        try:
            self._database = sqlite3.connect(path or ":memory:", isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(_TABLE)
        except sqlite3.Error as error:
            raise InvalidInputError(f"the answers file {path} cannot be opened: {error}") from error
        (self._num_bytes,) = self._database.execute(f"SELECT coalesce(sum({_SIZE}), 0) FROM answers").fetchone()

    def close(self) -> None:
        """Closes the file; nothing is found or kept afterwards."""
        self._database.close()

    @contextlib.asynccontextmanager
    async def alone(self, owner: str, key: str) -> AsyncIterator[None]:
        """Holds a key: of two requests with one key at the same time, the second waits for the first's score."""
        lock = self._locks.setdefault((owner, key), asyncio.Lock())
        async with lock:
            yield

    def find(self, owner: str, key: str) -> ScoredAnswer | None:
        """Returns what is kept under a key; None if nothing is."""
        row = self._database.execute(
            "SELECT request, score FROM answers WHERE owner = ? AND key = ?", (owner, key)
        ).fetchone()
        if row is None:
            return None
        return ScoredAnswer(request=ScoreRequest.FromString(row[0]), score=Score.FromString(row[1]))

    def score_of(self, owner: str, request: ScoreRequest) -> Score | None:
        """The score that this very request got before. AlreadyExistsError if the key stands for another request."""
        found = self.find(owner, request.idempotency_key)
        if found is None:
            return None
        if found.request != _lasting(request):
            raise AlreadyExistsError(
                f"the idempotency key {request.idempotency_key!r} was used for another request; take a new key"
            )
        return found.score

    def keep(self, owner: str, request: ScoreRequest, score: Score) -> None:
        """Keeps an answer with its score, in place of the one that the key had."""
        key, data = request.idempotency_key, (_lasting(request).SerializeToString(), score.SerializeToString())
        self._forget("owner = ? AND key = ?", (owner, key))
        self._database.execute(
            "INSERT INTO answers (owner, key, request, score) VALUES (?, ?, ?, ?)", (owner, key, *data)
        )
        self._num_bytes += sum(map(len, data))
        while self._num_bytes > self._max_bytes:
            self._forget("number = (SELECT min(number) FROM answers)")

    def _forget(self, which: str, parameters: tuple[str, ...] = ()) -> None:
        for (num_bytes,) in self._database.execute(f"DELETE FROM answers WHERE {which} RETURNING {_SIZE}", parameters):
            self._num_bytes -= num_bytes


def _lasting(request: ScoreRequest) -> ScoreRequest:
    """Returns what of a request makes it the same request: all but its deadline."""
    lasting = ScoreRequest()
    lasting.CopyFrom(request)
    lasting.ClearField("deadline_s")
    return lasting
