"""Pictures of questions: files, bytes or decoded ones become content by its digest, as the blob store keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perilune.data.whole_files import write_whole
from perilune.images import convert_image, digest_of_image, media_type_of
from perilune.images.sources import image_bytes


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
        return [self._keep(image_bytes(each, beside, where), where) for each in several]

    def _keep(self, data: bytes, where: str) -> Image:
        data = convert_image(data, where)
        image = Image(digest_of_image(data), media_type_of(data, where))
        path = self.folder / "content" / image.digest
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        return image
