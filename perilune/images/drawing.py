"""Colours that have names, simple shapes, and letters of a font that comes with Pillow: tools of tasks that draw.

Nothing here is random, and shapes are not smoothed: the same calls make the same pixels. Pillow is imported when
something is drawn, as tasks are listed where it is not installed.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from perilune.errors import MissingDependencyError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels; both ends are inside

COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 200),
    "yellow": (240, 200, 20),
    "purple": (140, 60, 180),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "cross")
GRID = (200, 200, 200)
WHITE = (255, 255, 255)


def blank(width: int, height: int) -> tuple[Image, ImageDraw]:
    """A white picture and what draws on it. MissingDependencyError: Pillow is not installed."""
    try:
        from PIL import Image as Pictures
        from PIL import ImageDraw as Drawing
    except ImportError as error:
        raise MissingDependencyError("tasks that draw need `pip install pillow`") from error
    picture = Pictures.new("RGB", (width, height), WHITE)
    return picture, Drawing.Draw(picture)


def draw_shape(draw: ImageDraw, shape: str, box: Box, colour: str) -> None:
    """Draws one of SHAPES, filled with one of COLOURS, in a box."""
    left, top, right, bottom = box
    middle, arm = (left + right) / 2, (right - left) * 0.4
    fill = COLOURS[colour]
    match shape:
        case "circle":
            draw.ellipse(box, fill=fill)
        case "square":
            draw.rectangle(box, fill=fill)
        case "triangle":
            draw.polygon([(middle, top), (right, bottom), (left, bottom)], fill=fill)
        case "cross":
            draw.rectangle((left + arm, top, right - arm, bottom), fill=fill)
            draw.rectangle((left, top + arm, right, bottom - arm), fill=fill)
        case _:
            raise ValueError(f"there is no shape {shape!r}; known are {', '.join(SHAPES)}")


def draw_grid(draw: ImageDraw, num_columns: int, num_rows: int, cell: int) -> None:
    """Draws thin lines between square cells of so many pixels."""
    for column in range(num_columns + 1):
        draw.line((column * cell, 0, column * cell, num_rows * cell), fill=GRID)
    for row in range(num_rows + 1):
        draw.line((0, row * cell, num_columns * cell, row * cell), fill=GRID)


def with_noise(image: Image, noise: float, rng: Random) -> Image:
    """A picture each pixel of which is random to some share: 0 is the picture itself, 1 has nothing of it left."""
    if not noise:
        return image
    from PIL import Image as Pictures

    random = Pictures.frombytes("RGB", image.size, rng.randbytes(3 * image.width * image.height))
    return Pictures.blend(image, random, noise)


def font_of(size: int) -> FreeTypeFont:
    """The font that comes with Pillow, with letters of about so many pixels."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # the other kind is what comes without a size
    return font


def draw_word(draw: ImageDraw, text: str, centre: tuple[float, float], size: int, fill: tuple[int, int, int]) -> None:
    """Draws a word around a point."""
    draw.text(centre, text, fill=fill, font=font_of(size), anchor="mm")
