"""The ways in which a row of data gives an image: by a path, bytes, base64, a URL, or as a decoded picture."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perilune.data.jsonlines import open_file
from perilune.data.rows import kind_of
from perilune.errors import InvalidInputError, NotFoundError
from perilune.images.reading import LIMITS, InvalidImageError

Fetch = Callable[[str, str], bytes]  # of a URL, and the image in words; see `perilune.images.fetching`


def image_bytes(value: Any, beside: Path, where: str, fetch: Fetch | None = None) -> bytes:
    """The encoded bytes of an image, as they were given. They are not decoded here.

    Args:
        value: a path, a data URL, bytes, an object with bytes or path (as Parquet files of datasets have it), a decoded
            picture (PIL), or a URL.
        beside: the folder that paths are relative to.
        where: the image in words, for errors.
        fetch: of URLs; without it they are refused.

    Raises:
        InvalidImageError: it is none of these, or cannot be read.
    """
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case str() if value.startswith("data:"):
            return _of_data_url(value, where)
        case str() if "://" in value:
            return _of_url(value, where, fetch)
        case str() if value.strip():
            return _of_file(beside / value, where)
        case Mapping() if value.get("bytes"):
            return image_bytes(value["bytes"], beside, where)
        case Mapping() if isinstance(value.get("path"), str):
            return image_bytes(value["path"], beside, where, fetch)
    if hasattr(value, "save") and hasattr(value, "mode"):  # decoded, of PIL
        out = io.BytesIO()
        value.save(out, "PNG")
        return out.getvalue()
    raise InvalidImageError(f"{where} must be a path, bytes or a data URL, and is {kind_of(value)}", "not given")


def of_base64(text: Any, where: str) -> bytes:
    """The bytes of base64 text. InvalidImageError: it is none."""
    if not isinstance(text, str):
        raise InvalidImageError(f"{where} must be base64, and is {kind_of(text)}", "not given")
    if len(text) > LIMITS.max_bytes * 4 // 3 + 4:
        raise InvalidImageError(f"{where} has more than {LIMITS.max_bytes:,} bytes: make it smaller", "too many bytes")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidImageError(f"{where} is no base64: {error}", "not given") from error


def _of_data_url(value: str, where: str) -> bytes:
    head, comma, body = value.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InvalidImageError(f"{where}: a data URL must be data:image/…;base64,… and is {value:.60}", "not given")
    return of_base64(body, where)


def _of_url(url: str, where: str, fetch: Fetch | None) -> bytes:
    if fetch is None:
        raise InvalidImageError(
            f"{where}: URLs are not fetched: download {url:.80} and give its path, or have its host allowed where the "
            "master runs (PERILUNE_IMAGE_HOSTS)",
            "url",
        )
    return fetch(url, where)


def _of_file(path: Path, where: str) -> bytes:
    try:
        with open_file(path) as file:
            data = file.read(LIMITS.max_bytes + 1)
    except (NotFoundError, InvalidInputError, OSError) as error:
        raise InvalidImageError(f"{where}: {error}", "no file") from error
    return data
