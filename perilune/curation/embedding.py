"""Nearness of questions by an embedding model: behind an OpenAI-compatible endpoint, or a Hugging Face folder.

A folder's model is read here, and a text's vector is the mean of the last layer over its tokens, as sentence
transformers take it; all vectors have length 1. Vectors of an endpoint are kept, for they are paid for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from perilune.completions import FIRST_PAUSE_S, LONGEST_PAUSE_S, NUM_TRIES, RETRIED, Cache, folder_digest
from perilune.curation.workspace import batched
from perilune.errors import InvalidInputError, MissingDependencyError, UnavailableError
from perilune.recipe import PositiveFloat, PositiveInt, Table


class EmbeddingTable(Table):
    """An embedding model."""

    url: str = ""  # such as http://127.0.0.1:8000/v1
    model: str = ""  # its name there
    path: str = ""  # instead of a URL: a Hugging Face folder
    api_key_env: str = ""
    template: str = "{question}"  # some models want "query: {question}"
    batch_size: PositiveInt = 64  # texts of one call or pass
    max_tokens: PositiveInt = 512  # of a text, for a folder's model
    timeout_s: PositiveFloat = 120.0

    @model_validator(mode="after")
    def _is_one(self) -> EmbeddingTable:
        if self.path and self.url:
            raise ValueError("url names an endpoint and path a folder: write one of the two")
        if "{question}" not in self.template:
            raise ValueError("every text would be the same: write {question} where the question goes")
        return self

    @property
    def is_given(self) -> bool:
        """Tests whether there is a model."""
        return bool(self.path or (self.url and self.model))


Embed = Callable[[Sequence[str]], NDArray[np.float32]]


def nearest(
    table: EmbeddingTable,
    texts: Sequence[str],
    questions: Iterable[tuple[int, str]],
    cache: Cache | None,
    notify: Callable[[str], None],
) -> Iterator[tuple[int, int, float]]:
    """For each numbered question the place of the nearest text, and their cosine.

    UnavailableError: the endpoint failed; vectors that it gave are kept. InvalidInputError: there is no such model.
    """
    embed = _of_folder(table) if table.path else _of_endpoint(table, cache)
    known = np.concatenate([embed(batch) for batch in batched(texts, table.batch_size)])
    num_done = 0
    for batch in batched(questions, table.batch_size):
        cosines = embed([text for _, text in batch]) @ known.T
        for (number, _), row in zip(batch, cosines, strict=True):
            place = int(row.argmax())
            yield number, place, float(row[place])
        num_done += len(batch)
        notify(f"embeddings: {num_done:,} questions compared with {len(texts):,}")


def _of_folder(table: EmbeddingTable) -> Embed:
    folder_digest(Path(table.path))  # InvalidInputError without a model
    try:
        from perilune.models.embedding import MeanPooled
    except ImportError as error:
        raise MissingDependencyError("a folder's embedding model needs `pip install 'perilune[trainer]'`") from error
    model = MeanPooled(table.path, table.max_tokens)

    def embed(batch: Sequence[str]) -> NDArray[np.float32]:
        return _of_length_1(model.vectors([table.template.replace("{question}", text) for text in batch]))

    return embed


def _of_endpoint(table: EmbeddingTable, cache: Cache | None) -> Embed:
    key = os.environ.get(table.api_key_env, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}

    def key_of(text: str) -> bytes:
        return hashlib.sha256(json.dumps(["embedding", table.model, table.template, text]).encode()).digest()

    def embed(batch: Sequence[str]) -> NDArray[np.float32]:
        kept = {text: found for text in batch if cache and (found := cache.get(key_of(text)))}
        new = [text for text in dict.fromkeys(batch) if text not in kept]
        for text, vector in zip(new, asyncio.run(_asked(table, new, headers)) if new else [], strict=True):
            kept[text] = json.dumps(vector)
            if cache:
                cache.put(key_of(text), kept[text])
        return _of_length_1(np.array([json.loads(kept[text]) for text in batch], np.float32))

    return embed


async def _asked(table: EmbeddingTable, texts: Sequence[str], headers: dict[str, str]) -> list[list[float]]:
    import httpx2

    body = {"model": table.model, "input": [table.template.replace("{question}", text) for text in texts]}
    reason = ""
    async with httpx2.AsyncClient(headers=headers, timeout=table.timeout_s) as client:
        for attempt in range(NUM_TRIES):
            if attempt:
                await asyncio.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt) * random.uniform(0.5, 1.0))
            found, reason = await _post(client, f"{table.url.rstrip('/')}/embeddings", body)
            if reason:
                continue
            try:
                vectors = [
                    list(map(float, each["embedding"])) for each in sorted(found["data"], key=lambda e: e["index"])
                ]
            except (LookupError, TypeError, ValueError):
                reason = f"no embeddings were answered, but {found!r:.200}"
                continue
            if len(vectors) == len(texts) and len(set(map(len, vectors))) == 1:
                return vectors
            reason = f"{len(vectors)} embeddings were answered to {len(texts)} texts"
    raise UnavailableError(f"after {NUM_TRIES} tries, {reason}")


async def _post(client: Any, url: str, body: Any) -> tuple[Any, str]:
    """The JSON that an endpoint answers, or None and why it may be tried again. InvalidInputError: it rejects it."""
    import httpx2

    try:
        answer = await client.post(url, json=body)
    except httpx2.HTTPError as error:
        return None, f"{url} is away: {error!r}"
    if answer.status_code in RETRIED:
        return None, f"{url} failed with {answer.status_code}: {answer.text[:200].strip()}"
    if answer.is_error:
        raise InvalidInputError(f"{url} rejects this with {answer.status_code}: {answer.text[:300].strip()}")
    try:
        return answer.json(), ""
    except ValueError:
        return None, f"{url} answered with no JSON: {answer.text[:200].strip()}"


def _of_length_1(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
