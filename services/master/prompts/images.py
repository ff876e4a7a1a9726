"""The images of a row of data: found in its columns and in its messages, checked, and kept by their digests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from perilune.data.rows import image_by_digest, value_at
from perilune.errors import InvalidInputError
from perilune.images import InvalidImageError, convert_image, digest_of_image, media_type_of, read_image
from perilune.images.sources import Fetch, image_bytes, of_base64
from perilune.recipe import RowPrompts

COLUMNS = ("image", "images")  # that a row may have without being named
MARKER = "<image>"  # where an image goes in a text
_SOURCES = ("path", "base64", "bytes", "image", "url", "image_url")  # keys of a part that say where its image is

Part = dict[str, Any]


class ImageStore(Protocol):
    """A place for the images of prompts. UnavailableError: it does not answer."""

    def has_content(self, digest: str) -> bool:
        """Tests whether an image lies there."""

    def put_content(self, data: bytes) -> str:
        """Keeps an image by its digest, which it returns."""


@dataclass(frozen=True)
class ImageAccess:
    """The means to fetch and to keep images of a prompt set; without a store they are only checked."""

    store: ImageStore | None = None
    fetch: Fetch | None = None


LOOKED_AT = ImageAccess()
"""Images are checked, and none is kept or fetched."""


class RowImages:
    """The images of one row: those of its columns, in order, and those that its messages bring themselves."""

    def __init__(self, row: Mapping[str, Any], table: RowPrompts, access: ImageAccess, beside: Path, where: str):
        """InvalidInputError: a column that the recipe names is not there."""
        self._table, self._access, self._beside, self._where = table, access, beside, where
        self._given = list(_given(row, table, where))
        self._num_placed = 0
        self._num_read = 0

    @property
    def are_left(self) -> bool:
        """Tests whether an image of a column has no place yet."""
        return self._num_placed < len(self._given)

    def messages(self, question: str | list[Part], template: str) -> str | list[Part]:
        """The question with its images in their places: markers in texts, parts without a source, or else in front.

        Text stays text where there are no images. InvalidInputError: there are more places than images, or places for
        some of them. InvalidImageError: an image cannot be shown.
        """
        if isinstance(question, str):
            if not self.are_left:
                return question
            question = [{"role": "user", "content": template.replace("{question}", question)}]
        placed = [{**message, "content": self._content(message["content"])} for message in question]
        if self.are_left and self._num_placed:
            raise InvalidInputError(
                f"{self._where} has {len(self._given)} images, and places for {self._num_placed}: write {MARKER} once "
                "for each, or not at all"
            )
        if self.are_left:
            first = next(message for message in placed if message["role"] in ("user", "tool"))
            content = first["content"]
            texts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            first["content"] = [*(self.next() for _ in self._given), *texts]
        return placed

    def read(self, part: Mapping[str, Any], where: str, key: str) -> Part:
        """An image of a message's part: by its digest, from where it says, or the next of the columns."""
        if part.get("digest") is not None:
            return self._stored(image_by_digest(part, where, key), f"{where}: {key!r}")
        named = [name for name in _SOURCES if part.get(name) is not None]
        if not named:
            return self.next()
        if len(named) > 1:
            raise InvalidInputError(f"{where}: {key!r} has both {named[0]!r} and {named[1]!r}: give one of them")
        place = f"{where}: {f'{key}.{named[0]}'!r}"
        value = part[named[0]]
        if named[0] == "base64":
            return self._kept(of_base64(value, place), place)
        if named[0] == "image_url" and isinstance(value, Mapping):
            value = value.get("url")
        return self._kept(image_bytes(value, self._beside, place, self._access.fetch), place)

    def next(self) -> Part:
        """The next image of the columns. InvalidInputError: there is none left."""
        if not self.are_left:
            raise InvalidInputError(
                f"{self._where} has more places for images than images: {len(self._given)} in the columns "
                f"{', '.join(map(repr, self._table.images or COLUMNS))}"
            )
        key, value = self._given[self._num_placed]
        self._num_placed += 1
        place = f"{self._where}: {key!r}"
        return self._kept(image_bytes(value, self._beside, place, self._access.fetch), place)

    def _content(self, content: str | list[Part]) -> str | list[Part]:
        """A content with images of the columns in place of its markers."""
        if not self._given:
            return content
        if isinstance(content, list):
            return [each for part in content for each in self._marked(part)]
        return list(self._marked({"type": "text", "text": content})) if MARKER in content else content

    def _marked(self, part: Part) -> Iterator[Part]:
        if part["type"] != "text":
            yield part
            return
        for place, text in enumerate(part["text"].split(MARKER)):
            if place:
                yield self.next()
            if text.strip():
                yield {"type": "text", "text": text}

    def _stored(self, part: Part, where: str) -> Part:
        """An image that is said to lie in the store. InvalidImageError if it does not."""
        self._count()
        if self._access.store and not self._access.store.has_content(part["digest"]):
            raise InvalidImageError(
                f"{where} is not in the blob store: put it there, or name the store that has it (PERILUNE_BLOBS)",
                "no file",
            )
        return part

    def _kept(self, data: bytes, where: str) -> Part:
        """Checks an image and keeps it. One that the store has was checked before it came there."""
        self._count()
        if self._table.convert_images:
            data = convert_image(data, where)
        digest, store = digest_of_image(data), self._access.store
        if store is None or not store.has_content(digest):
            read_image(data, where)
            if store:
                store.put_content(data)
        return {"type": "image", "digest": digest, "media_type": media_type_of(data, where)}

    def _count(self) -> None:
        self._num_read += 1
        if self._num_read > self._table.max_images:
            raise InvalidImageError(
                f"{self._where} has more images than prompts.max_images = {self._table.max_images}: raise it if the "
                "model takes more",
                "too many images",
            )


def _given(row: Mapping[str, Any], table: RowPrompts, where: str) -> Iterator[tuple[str, Any]]:
    """The images of a row's columns, each with its column; lists are taken apart."""
    if table.images is None:
        found: Sequence[tuple[str, Any]] = [(key, row[key]) for key in COLUMNS if key in row]
    else:
        found = [(key, value_at(row, key, where)) for key in table.images]
    for key, value in found:
        several = value if isinstance(value, list | tuple) else [value]
        yield from ((key, each) for each in several if each not in (None, ""))
