"""Bytes that are too large for the bus, or that belong to no message: a folder or a bucket under a URL (fsspec).

Messages over the bus's limit lie under `messages/`, by id and digest, until they are acknowledged or a month old.
Content such as images lies under `content/`, by its digest alone, and is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from perilune.errors import InvalidInputError, NotFoundError, SettingsError, UnavailableError

logger = logging.getLogger(__name__)

MAX_AGE_S = 30 * 24 * 3600.0  # of a message that was not acknowledged: as long as dead letters are kept
SWEEP_EVERY_S = 24 * 3600.0
_DIGEST = r"[0-9a-f]{64}"
_NAME = re.compile(rf"messages/[0-9a-f]{{32}}-({_DIGEST})|content/({_DIGEST})", re.ASCII)

T = TypeVar("T")


def message_name(message_id: str, payload_digest: str) -> str:
    """The name of the blob that holds a message. The same bytes under another id are another blob."""
    about = hashlib.sha256(message_id.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"messages/{about}-{payload_digest}"


def content_name(digest: str) -> str:
    """The name of the blob with this SHA-256."""
    return f"content/{digest}"


class Blobs:
    """A store of blobs, which are written once and read whole. Safe to share between services.

    UnavailableError, from any method, if the store does not answer: try again later.
    """

    def __init__(self, url: str) -> None:
        """`url`: a folder, or whatever fsspec reads, such as `s3://bucket/folder`.

        SettingsError if no library that is installed reads such a URL.
        """
        try:
            self._files, self._root = fsspec.url_to_fs(url, use_listings_cache=False)  # type: ignore[no-untyped-call]
        except (ImportError, ValueError) as error:
            raise SettingsError(f"PERILUNE_BLOBS {url!r} cannot be used: {error}") from error
        self._url = url

    async def put(self, data: bytes) -> str:
        """Keeps content for good; returns its SHA-256 in hex."""
        return await asyncio.to_thread(self.put_content, data)

    def put_content(self, data: bytes) -> str:
        """Does what `put` does, from a thread that may block."""
        digest = hashlib.sha256(data).hexdigest()
        self._try(self._write, self._path(content_name(digest)), data)
        return digest

    def has_content(self, digest: str) -> bool:
        """Tests whether there is content with this SHA-256, from a thread that may block."""
        return bool(self._try(self._files.exists, self._path(content_name(digest))))

    async def get(self, digest: str) -> bytes:
        """Content by its SHA-256. Errors are those of `read`."""
        return await self.read(content_name(digest))

    async def write(self, name: str, data: bytes) -> None:
        """Writes a blob; a reader sees all of it or none."""
        await self._do(self._write, self._path(name), data)

    async def read(self, name: str) -> bytes:
        """A blob's bytes, checked against the digest in its name.

        Raises:
            InvalidInputError: it is no blob's name, or other bytes lie there.
            NotFoundError: there is no such blob.
        """
        data = await self._do(self._files.cat_file, self._path(name))
        if not name.endswith(hashlib.sha256(data).hexdigest()):
            raise InvalidInputError(f"the blob {name} in {self._url} is damaged: its digest differs")
        return data

    async def delete(self, name: str) -> None:
        """Deletes a blob, if it is there."""
        await self._do(self._delete, self._path(name))

    async def delete_old_messages(self, age_s: float = MAX_AGE_S) -> int:
        """Deletes messages that nothing acknowledged within this time; returns how many."""
        return await self._do(self._delete_old, f"{self._root}/messages", time.time() - age_s)

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"{name[:200]!r} is no blob's name")
        return f"{self._root}/{name}"

    def _write(self, path: str, data: bytes) -> None:
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        if not isinstance(self._files, LocalFileSystem):  # an object store shows whole objects alone
            self._files.pipe_file(path, data)
            return
        part = f"{path}.{uuid4().hex}"
        self._files.pipe_file(part, data)  # type: ignore[no-untyped-call]
        self._files.mv(part, path)

    def _delete(self, path: str) -> None:
        if self._files.exists(path):
            self._files.rm_file(path)

    def _delete_old(self, folder: str, before: float) -> int:
        if not self._files.exists(folder):
            return 0
        old = [path for path in self._files.find(folder) if self._files.modified(path).timestamp() < before]
        for path in old:
            self._delete(path)
        return len(old)

    async def _do(self, work: Callable[..., T], *arguments: Any) -> T:
        """As `_try`, in a thread."""
        return await asyncio.to_thread(self._try, work, *arguments)

    def _try(self, work: Callable[..., T], *arguments: Any) -> T:
        """Does some work. NotFoundError if there is no such blob, UnavailableError for whatever else fails."""
        try:
            return work(*arguments)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{error.filename or arguments[0]} is not in the blob store {self._url}: "
                "it was deleted, or PERILUNE_BLOBS does not name one store for all services"
            ) from error
        except Exception as error:  # a store's own library decides what it raises
            raise UnavailableError(f"the blob store {self._url} failed: {error!r}") from error


async def sweep(blobs: Blobs) -> None:
    """Deletes what is left of old messages, now and every day. One service does it for all: the master."""
    while True:
        try:
            if num_deleted := await blobs.delete_old_messages():
                logger.info(
                    "deleted %d messages from the blob store that nothing acknowledged for a month", num_deleted
                )
        except UnavailableError as error:
            logger.warning("%s; looking for old messages again in a day", error)
        await asyncio.sleep(SWEEP_EVERY_S)
