"""Encoded pictures as pixels: 8 bits of red, green and blue, upright; what cannot be that without a choice is refused.

A picture's bytes are kept as they were given and are known by their SHA-256. Engine, trainer and page decode them here,
so that all see the same pixels. What is not shown alike by all programs is an error that says what to do: transparency
(over which background?), CMYK (by which profile?), more than 8 bits (which range?), several frames (which one?).
`convert_image` makes these choices, where the recipe allows it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from perilune.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_PLAIN_MODES = ("1", "L", "P", "RGB", "RGBX", "YCbCr")  # each is RGB without a choice
_TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP_FORMATS = ("PNG", "TIFF")  # whose raw modes name 16 bits of a channel, which the library cuts to 8

Fault = Literal[
    "empty", "too many bytes", "not an image", "broken", "too many pixels", "too small", "too narrow", "several frames",
    "more than 8 bits", "colour space", "transparent", "not given", "no file", "url", "too many images",
]  # fmt: skip


class InvalidImageError(InvalidInputError):
    """A picture that models cannot be shown; `fault` names the kind of the reason."""

    def __init__(self, message: str, fault: Fault = "not an image") -> None:
        super().__init__(message)
        self.fault: Fault = fault


@dataclass(frozen=True)
class ImageLimits:
    """Bounds of pictures, checked before their pixels are unpacked."""

    max_bytes: int = 32 * 2**20  # encoded
    max_pixels: int = 2**24  # 4096 x 4096
    min_side: int = 2  # pixels
    max_ratio: int = 200  # of the longer side to the shorter


LIMITS = ImageLimits()


def digest_of_image(data: bytes) -> str:
    """The SHA-256 of encoded bytes in hex: a picture's name in the blob store."""
    return hashlib.sha256(data).hexdigest()


def read_image(data: bytes, where: str = "the image", limits: ImageLimits = LIMITS) -> Image:
    """The pixels of an encoded picture in mode RGB, turned upright by its EXIF orientation.

    Args:
        data: PNG, JPEG, WebP, GIF, BMP or TIFF.
        where: the picture in words, for errors.
        limits: bounds of its size.

    Raises:
        InvalidImageError: it is no picture, is broken or over the limits, or its pixels are not 8-bit RGB without a
            choice; `fault` names the kind.
        MissingDependencyError: Pillow is not installed.
    """
    with _opened(data, where, limits) as image:
        _check_kind(image, where)
        image.load()
        if _is_transparent(image):
            raise InvalidImageError(
                f"{where} is transparent in places, and what is behind them is not said: put it over a background, "
                "and save it without transparency",
                "transparent",
            )
        return _upright(image).convert("RGB")


def media_type_of(data: bytes, where: str = "the image", limits: ImageLimits = LIMITS) -> str:
    """The media type of encoded bytes, such as image/png, by their head: pixels are not looked at.

    InvalidImageError: they are no picture, or one over the limits.
    """
    from PIL import Image as Pictures

    with _opened(data, where, limits) as image:
        return "image/jpeg" if image.format == "MPO" else Pictures.MIME[str(image.format)]


def convert_image(data: bytes, where: str = "the image", limits: ImageLimits = LIMITS) -> bytes:
    """A picture that `read_image` reads: the bytes as they are, or as a PNG with the usual choices made.

    These are: the first frame; CMYK and the like by Pillow's own formulas; the upper 8 of 16 bits; over white. Errors
    are those of `read_image` for what no choice mends.
    """
    try:
        read_image(data, where, limits)
        return data
    except InvalidImageError as error:
        if error.fault not in ("several frames", "more than 8 bits", "colour space", "transparent"):
            raise
    with _opened(data, where, limits) as image:
        image.seek(0)
        image.load()
        return encode_png(_over_white(_eight_bits(_upright(image), where)))


def encode_png(image: Image) -> bytes:
    """A decoded picture as PNG: the same pixels are the same bytes, with one version of Pillow."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@contextmanager
def _opened(data: bytes, where: str, limits: ImageLimits) -> Iterator[Image]:
    """A picture within the limits, not yet unpacked. Every error of the library inside is an InvalidImageError."""
    try:
        from PIL import Image as Pictures
        from PIL import UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError("images need `pip install pillow`") from error
    _check_bytes(data, where, limits)
    try:
        with Pictures.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, where, limits)
            yield image
    except InvalidImageError:
        raise
    except UnidentifiedImageError as error:
        raise InvalidImageError(
            f"{where} is no image: known are {', '.join(FORMATS)}, and it begins with {data[:12]!r}", "not an image"
        ) from error
    except Pictures.DecompressionBombError as error:
        raise InvalidImageError(f"{where} unpacks to too many pixels: {error}", "too many pixels") from error
    # Six decoders over bytes that anyone may have sent: there is no saying what they raise.
    except Exception as error:
        raise InvalidImageError(f"{where} is broken or cut short: {error or type(error).__name__}", "broken") from error


def _check_bytes(data: bytes, where: str, limits: ImageLimits) -> None:
    if not data:
        raise InvalidImageError(f"{where} is empty: it has no bytes", "empty")
    if len(data) > limits.max_bytes:
        raise InvalidImageError(
            f"{where} has {len(data):,} bytes, and may have {limits.max_bytes:,}: make it smaller", "too many bytes"
        )


def _check_size(image: Image, where: str, limits: ImageLimits) -> None:
    width, height = image.size
    size, short, long = f"{where} is {width} x {height} pixels", min(image.size), max(image.size)
    if width * height > limits.max_pixels:
        raise InvalidImageError(
            f"{size}, and may have {limits.max_pixels:,} in all: make it smaller", "too many pixels"
        )
    if short < limits.min_side:
        raise InvalidImageError(
            f"{size}, and each side must have at least {limits.min_side}: there is nothing to see", "too small"
        )
    if long > limits.max_ratio * short:
        raise InvalidImageError(
            f"{size}: the longer side may be at most {limits.max_ratio} times the shorter; cut it into parts",
            "too narrow",
        )


def _check_kind(image: Image, where: str) -> None:
    """InvalidImageError for frames, depths and colours that are not one 8-bit RGB picture."""
    if _has_frames(image):
        raise InvalidImageError(
            f"{where} is animated or has several pages, and one is looked at: give each as an image of its own",
            "several frames",
        )
    if _is_deep(image):
        raise InvalidImageError(
            f"{where} has more than 8 bits in a channel: scale it to 8, as what counts in it is shown best",
            "more than 8 bits",
        )
    if image.mode not in _PLAIN_MODES + _TRANSPARENT_MODES:
        raise InvalidImageError(
            f"{where} is in the colours {image.mode}, and models look at RGB: convert it, by its own colour profile",
            "colour space",
        )


def _has_frames(image: Image) -> bool:
    """Tests whether there is more than one frame or page; previews beside a photograph (MPO) are none."""
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def _is_deep(image: Image) -> bool:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return True
    return image.format in _DEEP_FORMATS and any(
        isinstance(argument, str) and ";16" in argument
        for tile in getattr(image, "tile", [])
        for argument in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))
    )


def _is_transparent(image: Image) -> bool:
    """Tests whether some pixel is not opaque; an alpha channel that hides nothing is none."""
    if not image.has_transparency_data:
        return False
    least, _ = _extrema(image.convert("RGBA").getchannel("A"))
    return least < 255


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _eight_bits(image: Image, where: str) -> Image:
    """16-bit grey as its upper 8 bits; the library has cut coloured pictures so already."""
    if not image.mode.startswith("I"):
        return image
    low, high = _extrema(image)
    if low < 0 or high > 0xFFFF:
        raise InvalidImageError(f"{where} has values from {low:g} to {high:g}, and no known range", "more than 8 bits")
    return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")


def _extrema(image: Image) -> tuple[float, float]:
    """The least and the greatest value of the one channel that an image has."""
    found: Any = image.getextrema()
    return found[0], found[1]


def _over_white(image: Image) -> Image:
    from PIL import Image as Pictures

    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    return Pictures.alpha_composite(Pictures.new("RGBA", seen.size, "white"), seen).convert("RGB")
