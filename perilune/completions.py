"""Answers of a model, over any OpenAI-compatible endpoint or of its folder; each is asked for once and kept.

The cache is one SQLite file. An answer's key is the digest of the messages, the model, the settings and its number, so
that a command that was stopped goes on where it was, and another one takes what is there already.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from perilune.concurrency import as_finished
from perilune.errors import InvalidInputError, MissingDependencyError, StateError, UnavailableError
from perilune.recipe import NonNegativeFloat, PositiveFloat, PositiveInt, Table

NUM_TRIES = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 20.0
NUM_AHEAD = 4  # times max_concurrent: questions that wait for the endpoint
WEIGHT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model")
RETRIED = frozenset({408, 409, 425, 429, *range(500, 600)})
ALL_REJECTED = frozenset({401, 403, 404, 405})  # by an endpoint that would reject every other request too


class ModelTable(Table):
    """A model, and how it is sampled."""

    url: str = ""  # such as http://127.0.0.1:8000/v1
    model: str = ""  # its name there
    path: str = ""  # instead of a URL: a folder, a Hugging Face id or package:NAME, served while the command runs
    api_key_env: str = ""  # the environment variable that holds the key
    temperature: NonNegativeFloat = 1.0
    max_tokens: PositiveInt = 1024
    system: str = ""
    template: str = "{question}"
    max_concurrent: PositiveInt = 32
    timeout_s: PositiveFloat = 300.0  # of one call

    @model_validator(mode="after")
    def _is_one(self) -> ModelTable:
        if self.path and self.url:
            raise ValueError("url names an endpoint and path a folder: write one of the two")
        return self

    @property
    def is_given(self) -> bool:
        """Tests whether there is a model to ask."""
        return bool(self.path or (self.url and self.model))

    @property
    def name(self) -> str:
        """Returns what the model is called in reports, and at its endpoint."""
        return self.model or Path(self.path).name

    def identity(self) -> str:
        """Returns what kept answers are known by: the endpoint's URL, or of a folder the digest of its files.

        InvalidInputError: the folder holds no model.
        """
        folder = Path(self.path)
        return f"sha256:{folder_digest(folder)}" if self.path and folder.is_dir() else self.path or self.url


@dataclass(frozen=True)
class Answers:
    """Describes what a model wrote to one question; `failure` says why it is less than was asked for."""

    texts: Sequence[str]
    failure: str = ""


class Cache:
    """Answers by their keys, in a file. Every method raises StateError where the file cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._named_errors():
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, text TEXT NOT NULL)")

    def get(self, key: bytes) -> str | None:
        """The answer under a key, if it was ever given."""
        with self._named_errors():
            found = self._database.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def put(self, key: bytes, text: str) -> None:
        """Keeps an answer; it is on disk when this returns."""
        with self._named_errors(), self._database:
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateError(
                f"cannot keep answers in {self._path}: {error}; those before are kept, and the same command goes on"
            ) from error


class Model:
    """One model behind an endpoint, open for the time of a block."""

    def __init__(
        self,
        table: ModelTable,
        cache: Cache,
        api_key: str = "",
        response_format: Mapping[str, Any] | None = None,
        identity: str = "",
    ) -> None:
        """`identity`: what its answers are kept by, where the table does not say all: weights behind a URL change."""
        self._table, self._cache = table, cache
        self._format = {"response_format": response_format} if response_format else {}
        key = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._headers = {"content-type": "application/json", **key}
        self._identity = identity or table.identity()
        self._open = contextlib.AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None
        self._place = "" if table.path else table.url

    async def __aenter__(self) -> Self:
        """Opens nothing yet: where every reply is kept, no endpoint is needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connections, and ends the service of a folder."""
        await self._open.aclose()

    async def _connected(self) -> Any:
        """The HTTP client, opened by the first that needs it.

        InvalidInputError: the URL is none, or the folder cannot be served. MissingDependencyError: there is no HTTP
        client.
        """
        async with self._opening:
            if self._client is None:
                self._client = await self._open.enter_async_context(self._new_client(await self._served()))
            return self._client

    async def url(self) -> str:
        """Returns where the model answers; a folder is served from here on. InvalidInputError if it cannot be."""
        async with self._opening:
            return await self._served()

    def _new_client(self, url: str) -> Any:
        try:
            import httpx2
        except ImportError as error:
            raise MissingDependencyError(f"asking a model needs `pip install httpx2`: {error}") from error
        try:
            return httpx2.AsyncClient(
                base_url=f"{url.rstrip('/')}/",
                headers=self._headers,
                limits=httpx2.Limits(max_connections=self._table.max_concurrent),
                timeout=httpx2.Timeout(self._table.timeout_s, connect=10.0, pool=None),
            )
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise InvalidInputError(f"{url!r} is no URL of an endpoint: {error}") from error

    async def _served(self) -> str:
        """Returns where the model answers; a folder is served until this is closed."""
        if not self._place:
            from perilune.local import own_model

            try:
                service = own_model(Path(self._table.path), self._table.name)
                self._place = await self._open.enter_async_context(service)
            except UnavailableError as error:  # no request will ever be answered
                raise InvalidInputError(str(error)) from error
        return self._place

    async def reply(self, messages: Sequence[Mapping[str, str]], number: int = 0) -> str:
        """The reply to messages that has this number, kept or asked for.

        Raises:
            UnavailableError: the endpoint failed NUM_TRIES times, or rejects this request.
            InvalidInputError: it rejects every request: the key, the URL or the model is wrong.
            StateError: the reply cannot be kept.
        """
        body = {
            "model": self._table.name,
            "messages": messages,
            "temperature": self._table.temperature,
            "max_tokens": self._table.max_tokens,
            **self._format,
        }
        return await self.kept("chat/completions", body, number, text_in)

    async def kept(self, path: str, body: Mapping[str, Any], number: int, read: Callable[[bytes], str | None]) -> str:
        """Returns what was read of the answer to a request, kept or asked for. Errors as `reply`.

        Args:
            path: below the endpoint's URL.
            body: of the request, but for its seed, which follows from all that the answer is kept by.
            number: of the answer, among those to the same request.
            read: from an answer's bytes to what is kept of it; None where they are no answer.
        """
        key = hashlib.sha256(json.dumps([self._identity, body, number], sort_keys=True).encode()).digest()
        if (kept := self._cache.get(key)) is not None:
            return kept
        text = await self._ask(path, {**body, "seed": int.from_bytes(key[:4], "little") >> 1}, read)
        self._cache.put(key, text)
        return text

    @property
    def name(self) -> str:
        """Returns what the model is called at its endpoint."""
        return self._table.name

    @property
    def _where(self) -> str:
        return self._table.path or self._table.url

    async def _ask(self, path: str, body: Mapping[str, Any], read: Callable[[bytes], str | None]) -> str:
        import httpx2

        client = await self._connected()
        reason, content = "", json.dumps(body)  # in ASCII, whatever a prompt holds
        for attempt in range(NUM_TRIES):
            if attempt:
                pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            try:
                answer = await client.post(path, content=content)
            except httpx2.UnsupportedProtocol as error:
                raise InvalidInputError(f"{self._where!r} is no URL of an endpoint: {error}") from error
            except httpx2.HTTPError as error:
                reason = f"{self._where} is away: {error!r}"
                continue
            said = answer.text[:300].strip()
            if answer.status_code in RETRIED:
                reason = f"{self._where} failed with {answer.status_code}: {said}"
            elif answer.status_code in ALL_REJECTED:
                raise InvalidInputError(f"{self._where} rejects {self._table.name!r}: {answer.status_code} {said}")
            elif answer.is_error:
                raise UnavailableError(f"{self._where} rejects this request with {answer.status_code}: {said}")
            else:
                text = read(answer.content)
                if text is not None:
                    return text
                reason = f"{self._where} answered with no completion: {said}"
        raise UnavailableError(f"after {NUM_TRIES} tries, {reason}")


def text_in(content: bytes) -> str | None:
    """The text of a chat completion, with its reasoning before it in <think> tags; None if it is no chat completion.

    >>> text_in(b'{"choices": [{"message": {"content": "4", "reasoning_content": "2 + 2"}}]}')
    '<think>\\n2 + 2\\n</think>\\n\\n4'
    """
    try:
        message = json.loads(content)["choices"][0]["message"]
        answer, reasoning = message["content"], message.get("reasoning_content") or message.get("reasoning")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # whatever an endpoint may send
        return None
    if not isinstance(answer or "", str) or not isinstance(reasoning or "", str):
        return None
    text = f"<think>\n{reasoning}\n</think>\n\n{answer or ''}" if reasoning else answer or ""
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored


class Sampler:
    """Asks one model many questions."""

    def __init__(
        self, table: ModelTable, cache: Cache, api_key: str = "", response_format: Mapping[str, Any] | None = None
    ) -> None:
        """InvalidInputError: a key of the table cannot be used."""
        if "{question}" not in table.template:
            raise InvalidInputError("every prompt would be the same text: write {question} where the question goes")
        self._table = table
        self._model = Model(table, cache, api_key, response_format)

    async def sample(
        self, questions: Iterator[tuple[int, str]], num_answers: int
    ) -> AsyncIterator[tuple[int, Answers]]:
        """Answers to many questions, as they come. Errors as `Model.reply`, where the whole endpoint fails.

        Args:
            questions: numbers and texts.
            num_answers: to each.
        """
        room = max(1, NUM_AHEAD * self._table.max_concurrent // num_answers)
        async with self._model:
            waiting = (self._answer(number, question, num_answers) for number, question in questions)
            async with contextlib.aclosing(as_finished(waiting, room)) as answers:
                async for answer in answers:
                    yield answer

    async def _answer(self, number: int, question: str, num_answers: int) -> tuple[int, Answers]:
        messages = self._messages(question)
        tries = (self._model.reply(messages, index) for index in range(num_answers))
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


def folder_digest(folder: Path) -> str:
    """A digest of a model's folder. InvalidInputError if there is no model in it."""
    files = sorted(path for pattern in WEIGHT_FILES for path in folder.glob(pattern))
    if not any(path.suffix == ".safetensors" for path in files):
        raise InvalidInputError(f"{folder} holds no model: give a Hugging Face folder with safetensors and a tokenizer")
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
