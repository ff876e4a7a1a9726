"""Encoded pictures as pixels: what is read, what is refused and why, and what conversion makes of it."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image, ImageOps

from perilune.images import (
    ImageLimits,
    InvalidImageError,
    convert_image,
    digest_of_image,
    encode_png,
    media_type_of,
    read_image,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def two_colours(mode: str = "RGB") -> Image.Image:
    """Four pixels wide, two high: red on the left, blue on the right."""
    image = Image.new("RGB", (4, 2), RED)
    image.paste(BLUE, (2, 0, 4, 2))
    return image.convert(mode)


def half_transparent() -> Image.Image:
    image = two_colours("RGBA")
    image.putalpha(Image.frombytes("L", (4, 2), bytes([255, 255, 0, 0] * 2)))
    return image


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by its chunks, as the library itself does not write all of them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


DEEP_RGB = png_of(2, 2, 16, 2, (b"\0" + b"\xff\x7f\0\0\0\0" * 2) * 2)


def deep_grey() -> bytes:
    image = Image.new("I;16", (2, 2))
    image.putdata([0, 255, 256, 65535])
    return encoded(image)


def frames(file_format: str) -> bytes:
    return encoded(two_colours(), file_format, save_all=True, append_images=[ImageOps.invert(two_colours())])


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_a_picture_without_loss_is_the_pixels_that_it_was(file_format: str) -> None:
    data = encoded(two_colours(), file_format, **({"lossless": True} if file_format == "WEBP" else {}))
    image = read_image(data)
    assert (image.mode, image.size) == ("RGB", (4, 2))
    assert image.tobytes() == two_colours().tobytes()
    assert media_type_of(data) == f"image/{file_format.lower()}"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA"])
def test_grey_palettes_and_an_alpha_channel_that_hides_nothing_are_rgb(mode: str) -> None:
    data = encoded(two_colours(mode))
    assert read_image(data).tobytes() == two_colours(mode).convert("RGB").tobytes()
    assert convert_image(data) is data  # nothing to choose: the bytes as they were given


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    data = encoded(two_colours(), "PNG", exif=exif)
    image = read_image(data)
    assert image.size == (2, 4)
    assert image.getpixel((0, 0)) == RED
    assert image.getpixel((0, 3)) == BLUE


def test_previews_beside_a_photograph_are_no_frames() -> None:
    data = encoded(two_colours(), "MPO", save_all=True, append_images=[two_colours()])
    assert read_image(data).size == (4, 2)
    assert media_type_of(data) == "image/jpeg"


def test_its_name_is_the_digest_of_its_bytes() -> None:
    assert digest_of_image(b"bytes") == hashlib.sha256(b"bytes").hexdigest()
    assert encode_png(two_colours()) == encode_png(two_colours())


FAULTS = {
    "empty": b"",
    "not an image": b"<html>not found</html>",
    "broken": encoded(two_colours())[:60],
    "too many pixels": png_of(60_000, 60_000, 8, 2, b""),  # a bomb: 10 GB of pixels in 60 bytes
    "too small": encoded(Image.new("RGB", (1, 1))),
    "too narrow": encoded(Image.new("RGB", (2, 500))),
    "several frames": frames("GIF"),
    "more than 8 bits": deep_grey(),
    "colour space": encoded(two_colours("CMYK"), "JPEG"),
    "transparent": encoded(half_transparent()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_bad_picture_is_an_error_that_names_its_fault(fault: str) -> None:
    with pytest.raises(InvalidImageError, match=r"^row 7, image 'x\.png'") as raised:
        read_image(FAULTS[fault], "row 7, image 'x.png'")
    assert raised.value.fault == fault


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (frames("PNG"), "several frames"),
        (frames("WEBP"), "several frames"),
        (frames("TIFF"), "several frames"),
        (DEEP_RGB, "more than 8 bits"),
        (encoded(two_colours().convert("I"), "TIFF"), "more than 8 bits"),
        (encoded(two_colours().convert("F"), "TIFF"), "more than 8 bits"),
        (encoded(two_colours("CMYK"), "TIFF"), "colour space"),
        (encoded(two_colours("LAB"), "TIFF"), "colour space"),
        (encoded(two_colours().quantize(2), transparency=0), "transparent"),
        (encoded(two_colours("L"), transparency=76), "transparent"),  # 76: red as grey
        (encoded(two_colours(), transparency=RED), "transparent"),
        (encoded(half_transparent(), "WEBP", lossless=True), "transparent"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:-400], "broken"),
        (encoded(Image.effect_noise((64, 64), 50), "WEBP")[:-400], "broken"),
        (encoded(Image.effect_noise((64, 64), 50), "BMP")[:-400], "broken"),
        (encoded(two_colours())[:45] + b"\0\0" + encoded(two_colours())[47:], "broken"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    ],
)
def test_of_each_fault_the_other_formats(data: bytes, fault: str) -> None:
    with pytest.raises(InvalidImageError) as raised:
        read_image(data)
    assert raised.value.fault == fault


def test_limits_hold_for_bytes_pixels_and_shape() -> None:
    data = encoded(two_colours())
    for limits, fault in (
        (ImageLimits(max_bytes=len(data) - 1), "too many bytes"),
        (ImageLimits(max_pixels=7), "too many pixels"),
        (ImageLimits(min_side=3), "too small"),
        (ImageLimits(max_ratio=1), "too narrow"),
    ):
        with pytest.raises(InvalidImageError) as raised:
            read_image(data, limits=limits)
        assert raised.value.fault == fault
    assert read_image(data, limits=ImageLimits(len(data), 8, 2, 2)).size == (4, 2)


def test_conversion_makes_the_usual_choices() -> None:
    shown = read_image(convert_image(FAULTS["transparent"]))
    assert [shown.getpixel((0, 0)), shown.getpixel((3, 1))] == [RED, (255, 255, 255)]
    grey = read_image(convert_image(FAULTS["more than 8 bits"]))
    assert [pixel[0] for pixel in grey.get_flattened_data()] == [0, 0, 1, 255]
    assert read_image(convert_image(DEEP_RGB)).getpixel((1, 1)) == (255, 0, 0)
    assert read_image(convert_image(FAULTS["several frames"])).tobytes() == two_colours().tobytes()
    assert read_image(convert_image(FAULTS["colour space"])).getpixel((0, 0))[0] > 200  # type: ignore[index]


@pytest.mark.parametrize("fault", ["empty", "not an image", "broken", "too many pixels", "too small", "too narrow"])
def test_conversion_does_not_mend_what_is_no_picture(fault: str) -> None:
    with pytest.raises(InvalidImageError) as raised:
        convert_image(FAULTS[fault])
    assert raised.value.fault == fault
