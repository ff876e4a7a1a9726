"""Answers of a model to questions, over any OpenAI-compatible endpoint; each is asked for once and kept.

The cache is one SQLite file in the curation's folder. An answer's key is the digest of the messages, the model, the
settings and its number, so that a stopped stage goes on where it was, and another plan takes what is there already.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perilune.errors import InvalidInputError, UnavailableError
from perilune.recipe import NonNegativeFloat, PositiveFloat, PositiveInt, Table

NUM_TRIES = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 20.0
NUM_AHEAD = 4  # times max_concurrent: questions that wait for the endpoint
RETRIED = frozenset({408, 409, 425, 429, *range(500, 600)})


class ModelTable(Table):
    """A model behind an endpoint, and how it is sampled."""

    url: str = ""  # such as http://127.0.0.1:8000/v1; empty: there is none
    model: str = ""
    api_key_env: str = ""  # the environment variable that holds the key
    temperature: NonNegativeFloat = 1.0
    max_tokens: PositiveInt = 1024
    system: str = ""
    template: str = "{question}"
    max_concurrent: PositiveInt = 32
    timeout_s: PositiveFloat = 300.0  # of one call


@dataclass(frozen=True)
class Answers:
    """What a model wrote to one question; `failure` says why it is less than was asked for."""

    texts: Sequence[str]
    failure: str = ""


@dataclass
class Cache:
    """Answers by their keys, in a file."""

    path: Path
    _database: sqlite3.Connection = field(init=False)

    def __post_init__(self) -> None:
        self._database = sqlite3.connect(self.path, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, text TEXT NOT NULL)")

    def get(self, key: bytes) -> str | None:
        """The answer under a key, if it was ever given."""
        found = self._database.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def put(self, key: bytes, text: str) -> None:
        """Keeps an answer; it is on disk when this returns."""
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))


class Sampler:
    """Asks one model."""

    def __init__(self, table: ModelTable, cache: Cache, api_key: str = "") -> None:
        """InvalidInputError: a key cannot be used."""
        if "{question}" not in table.template:
            raise InvalidInputError("every prompt would be the same text: write {question} where the question goes")
        self._table = table
        self._cache = cache
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def sample(
        self, questions: Iterator[tuple[int, str]], num_answers: int
    ) -> AsyncIterator[tuple[int, Answers]]:
        """Answers to many questions, as they come.

        Args:
            questions: numbers and texts.
            num_answers: to each.
        """
        import httpx2

        limits = httpx2.Limits(max_connections=self._table.max_concurrent)
        timeout = httpx2.Timeout(self._table.timeout_s, connect=10.0, pool=None)
        base = f"{self._table.url.rstrip('/')}/"
        async with httpx2.AsyncClient(base_url=base, headers=self._headers, limits=limits, timeout=timeout) as client:
            waiting: set[asyncio.Task[tuple[int, Answers]]] = set()
            room = max(1, NUM_AHEAD * self._table.max_concurrent // num_answers)
            try:
                for number, question in questions:
                    waiting.add(asyncio.create_task(self._answer(client, number, question, num_answers)))
                    if len(waiting) >= room:
                        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                        for task in done:
                            yield task.result()
                for coming in asyncio.as_completed(waiting):
                    yield await coming
            finally:
                for task in waiting:
                    task.cancel()

    async def _answer(self, client: Any, number: int, question: str, num_answers: int) -> tuple[int, Answers]:
        messages = self._messages(question)
        tries = (self._one(client, messages, index) for index in range(num_answers))
        found = await asyncio.gather(*tries, return_exceptions=True)
        failures = [each for each in found if isinstance(each, BaseException)]
        for each in failures:
            if not isinstance(each, UnavailableError):
                raise each
        texts = [each for each in found if isinstance(each, str)]
        return number, Answers(texts, str(failures[0]) if failures else "")

    def _messages(self, question: str) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self._table.system}] if self._table.system else []
        return [*system, {"role": "user", "content": self._table.template.replace("{question}", question)}]

    async def _one(self, client: Any, messages: list[dict[str, str]], index: int) -> str:
        body = {
            "model": self._table.model,
            "messages": messages,
            "temperature": self._table.temperature,
            "max_tokens": self._table.max_tokens,
        }
        key = hashlib.sha256(json.dumps([self._table.url, body, index], sort_keys=True).encode()).digest()
        if (kept := self._cache.get(key)) is not None:
            return kept
        text = await self._ask(client, body | {"seed": int.from_bytes(key[:4], "little") >> 1})
        self._cache.put(key, text)
        return text

    async def _ask(self, client: Any, body: dict[str, Any]) -> str:
        """One reply. UnavailableError: the endpoint failed NUM_TRIES times. InvalidInputError: it refuses."""
        import httpx2

        reason = ""
        for attempt in range(NUM_TRIES):
            if attempt:
                pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            try:
                answer = await client.post("chat/completions", json=body)
            except httpx2.HTTPError as error:
                reason = f"{self._table.url} is away: {error!r}"
                continue
            if answer.status_code in RETRIED:
                reason = f"{self._table.url} failed with {answer.status_code}: {answer.text[:200].strip()}"
                continue
            if answer.is_error:
                raise InvalidInputError(
                    f"{self._table.url} refuses with {answer.status_code}: {answer.text[:300].strip()}"
                )
            try:
                return str(answer.json()["choices"][0]["message"]["content"] or "")
            except (ValueError, LookupError, TypeError):
                reason = f"{self._table.url} answered with no chat completion: {answer.text[:200].strip()}"
        raise UnavailableError(f"after {NUM_TRIES} tries, {reason}")
