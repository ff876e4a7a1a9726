"""Pictures of questions: files, bytes or decoded ones become content by its digest, as the blob store keeps it."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perilune.data.jsonlines import open_file
from perilune.data.rows import kind_of
from perilune.data.whole_files import write_whole
from perilune.errors import InvalidInputError, NotFoundError
from perilune.images import convert_image, digest_of_image, media_type_of


@dataclass(frozen=True)
class Image:
    """A picture that was kept."""

    digest: str  # SHA-256 of its bytes, in hex
    media_type: str


@dataclass(frozen=True)
class ImageStore:
    """Pictures in a folder, each once: `content/DIGEST`, which `PERILUNE_BLOBS` may name."""

    folder: Path

    def keep(self, value: Any, beside: Path, where: str) -> list[Image]:
        """Keeps the pictures under a key of a row; none if there is none.

        Args:
            value: a path, a data URL, bytes, an object with bytes or path (as Parquet files of datasets have it), a
                decoded picture (PIL), or a list of these.
            beside: the folder that paths are relative to.
            where: the row, for errors.

        Raises:
            InvalidInputError: it is no picture, or one that cannot be read. One that models are not shown as it is
                (transparent, animated, CMYK, more than 8 bits) is converted to a PNG that they are.
        """
        if value is None:
            return []
        several = value if isinstance(value, list | tuple) else [value]
        return [self._keep(_bytes_of(each, beside, where), where) for each in several]

    def _keep(self, data: bytes, where: str) -> Image:
        data = convert_image(data, where)
        image = Image(digest_of_image(data), media_type_of(data, where))
        path = self.folder / "content" / image.digest
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        return image


def _bytes_of(value: Any, beside: Path, where: str) -> bytes:
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case str() if value.startswith("data:"):
            return _of_data_url(value, where)
        case str() if "://" in value:
            raise InvalidInputError(f"{where}: pictures are not fetched: download {value:.80} and give its path")
        case str() if value.strip():
            return _of_file(beside / value, where)
        case Mapping() if value.get("bytes"):
            return bytes(value["bytes"])
        case Mapping() if value.get("path"):
            return _of_file(beside / str(value["path"]), where)
    if hasattr(value, "save") and hasattr(value, "mode"):  # decoded, of PIL
        out = io.BytesIO()
        value.save(out, "PNG")
        return out.getvalue()
    raise InvalidInputError(f"{where}: a picture must be a path or bytes, and is {kind_of(value)}")


def _of_file(path: Path, where: str) -> bytes:
    try:
        with open_file(path) as file:
            return file.read()
    except (NotFoundError, InvalidInputError, OSError) as error:
        raise InvalidInputError(f"{where}: {error}") from error


def _of_data_url(value: str, where: str) -> bytes:
    try:
        return base64.b64decode(value.partition("base64,")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError(f"{where}: a data URL holds no base64: {error}") from error
