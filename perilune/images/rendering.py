"""Text as a picture: prose in lines, code in columns, tables in frames, with the letters of a font (k1.5 §2.3.5).

The same text and keys are the same pixels. What a font has no letter for is never drawn as a box: it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from perilune.errors import InvalidInputError
from perilune.images.drawing import blank, font_of, with_noise
from perilune.images.reading import LIMITS, encode_png
from perilune.table import Share, Table

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

INK, FRAME, CODE_PAPER = (20, 20, 20), (120, 120, 120), (238, 238, 238)
FENCE = "```"
TAB = "    "
MAX_CHARS = 20_000
PACKAGE = "package:"

Side = Annotated[int, Field(ge=16, le=4096)]
LetterSize = Annotated[int, Field(ge=6, le=128)]


class RenderTable(Table):
    """Draws the text of prompts: the same questions with the same answers, as pictures."""

    share: Share = 1.0  # of the training prompts; the others stay text
    compare: bool = True  # ask each held-out problem twice: as text, and as a picture
    text: str = ""  # said beside the picture
    width: Side = 448  # pixels
    height: Side | None = None  # pixels at least; a longer text makes it higher
    min_size: LetterSize = 16  # of letters, in pixels; each picture has one size between these
    max_size: LetterSize = 24
    margin: Annotated[int, Field(ge=0, le=256)] = 8  # pixels
    fonts: tuple[str, ...] = ()  # files, of which each picture has one; if not given, one of plain letters (ASCII)
    # auto: fenced code and Markdown tables as such, and the rest as prose
    layout: Literal["auto", "prose", "code"] = "auto"
    noise: Share = 0.0  # how much of each pixel is random

    @model_validator(mode="after")
    def _sizes_are_ordered(self) -> RenderTable:
        if self.min_size > self.max_size:
            raise ValueError(f"min_size = {self.min_size} is larger than max_size = {self.max_size}")
        if self.width <= 2 * self.margin + self.max_size:
            raise ValueError(f"width = {self.width} leaves no room for letters of {self.max_size} between the margins")
        return self


def render_text(text: str, table: RenderTable) -> Image:
    """A picture of a text. Size, font and noise follow from the text.

    InvalidInputError: the font has no letter for some character, or the picture would be too large.
    """
    rng = Random(f"render/{text}")
    size = rng.randint(table.min_size, table.max_size)
    font = _font(rng.choice(table.fonts) if table.fonts else None, size)
    _check(text, font)
    blocks = [_block(kind, lines, font, table) for kind, lines in _parts(text, table.layout)]
    height = max(table.height or 0, sum(block.height for block in blocks) + 2 * table.margin)
    if table.width * height > LIMITS.max_pixels:
        raise InvalidInputError(f"the text would be a picture of {table.width} x {height} pixels: shorten it")
    image, draw = blank(table.width, height)
    top = float(table.margin)
    for block in blocks:
        block.paint(draw, top)
        top += block.height
    return with_noise(image, table.noise, rng)


def check_text(text: str, table: RenderTable) -> None:
    """InvalidInputError: some font of the table has no letter for some character, or the text is too long."""
    for path in table.fonts or (None,):
        _check(text, _font(path, table.min_size))


def is_drawn(text: str, table: RenderTable) -> bool:
    """Chooses, by the text itself, whether it belongs to the share that is drawn."""
    return Random(f"share/{text}").random() < table.share


def drawn_content(text: str, table: RenderTable) -> list[dict[str, Any]]:
    """A message's content that shows a text: its picture as {"type": "image", "bytes": …}, and what is said beside it.

    Errors are those of `render_text`.
    """
    image = {"type": "image", "bytes": encode_png(render_text(text, table))}
    return [image, {"type": "text", "text": table.text}] if table.text else [image]


# --- Blocks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """Lines that are laid out: their height in pixels, and what paints them below some place."""

    height: int
    paint: Callable[[ImageDraw, float], None]


def _parts(text: str, layout: str) -> Iterator[tuple[str, list[str]]]:
    """The lines of a text, taken together by what they are: prose, code or table."""
    lines = text.expandtabs(len(TAB)).splitlines() or [""]
    if layout != "auto":
        yield layout, lines
        return
    kind, held = "prose", list[str]()
    for line in lines:
        if line.strip().startswith(FENCE):
            found, line_is_kept = ("prose" if kind == "code" else "code"), False
        elif kind == "code":
            found, line_is_kept = "code", True
        else:
            found, line_is_kept = ("table" if line.strip().startswith("|") else "prose"), True
        if found != kind:
            if held:
                yield kind, held
            kind, held = found, []
        if line_is_kept:
            held.append(line)
    if held:
        yield kind, held


def _block(kind: str, lines: Sequence[str], font: FreeTypeFont, table: RenderTable) -> _Block:
    return {"prose": _prose, "code": _code, "table": _table}[kind](lines, font, table)


def _line_height(font: FreeTypeFont) -> int:
    return int(font.size * 1.25) + 1


def _prose(lines: Sequence[str], font: FreeTypeFont, table: RenderTable) -> _Block:
    step, room = _line_height(font), table.width - 2 * table.margin
    wrapped = [part for line in lines for part in _wrapped(line, font, room)]

    def paint(draw: ImageDraw, top: float) -> None:
        for number, line in enumerate(wrapped):
            draw.text((table.margin, top + number * step), line, fill=INK, font=font)

    return _Block(step * len(wrapped), paint)


def _wrapped(line: str, font: FreeTypeFont, room: int) -> Iterator[str]:
    """A line in lines that have room: between words; inside of words that have none by themselves."""
    held = ""
    for word in line.split(" "):
        longer = f"{held} {word}" if held else word
        if font.getlength(longer) <= room:
            held = longer
            continue
        if held:
            yield held
        *full, held = _cut(word, font, room)
        yield from full
    yield held


def _cut(word: str, font: FreeTypeFont, room: int) -> list[str]:
    """A word in pieces that have room, of a letter at least."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > room:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _code(lines: Sequence[str], font: FreeTypeFont, table: RenderTable) -> _Block:
    """Letters in columns of one width, on grey."""
    step, advance = _line_height(font), font.getlength("M")
    columns = max(1, int((table.width - 2 * table.margin) / advance))
    cut = [line[first : first + columns] for line in lines for first in range(0, max(1, len(line)), columns)]

    def paint(draw: ImageDraw, top: float) -> None:
        draw.rectangle((0, top, table.width, top + step * len(cut) - 1), fill=CODE_PAPER)
        for number, line in enumerate(cut):
            for column, letter in enumerate(line):
                place = (table.margin + (column + 0.5) * advance, top + number * step + step / 2)
                draw.text(place, letter, fill=INK, font=font, anchor="mm")

    return _Block(step * len(cut), paint)


def _table(lines: Sequence[str], font: FreeTypeFont, table: RenderTable) -> _Block:
    """A Markdown table in frames, in columns of one width; its rule line is not drawn."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    rows = [row for row in rows if not all(cell and set(cell) <= set("-: ") for cell in row)]
    num_columns = max(map(len, rows), default=1)
    width, step = (table.width - 2 * table.margin) / num_columns, _line_height(font)
    wrapped = [[list(_wrapped(cell, font, int(width) - 6)) for cell in row] for row in rows]
    heights = [step * max(map(len, row)) + 4 for row in wrapped]

    def paint(draw: ImageDraw, top: float) -> None:
        for row, height in zip(wrapped, heights, strict=True):
            for column in range(num_columns):
                left = table.margin + column * width
                draw.rectangle((left, top, left + width, top + height), outline=FRAME)
                for number, line in enumerate(row[column] if column < len(row) else []):
                    draw.text((left + 3, top + 2 + number * step), line, fill=INK, font=font)
            top += height

    return _Block(sum(heights) + 4, paint)


# --- Fonts --------------------------------------------------------------------------------------------------------


@cache
def _font(path: str | None, size: int) -> FreeTypeFont:
    """A font's file in a size. InvalidInputError: it cannot be read."""
    if path is None:
        return font_of(size)
    from PIL import ImageFont

    try:
        return ImageFont.truetype(_font_file(path), size)
    except OSError as error:
        raise InvalidInputError(f"the font {path} cannot be read: {error}") from error


def _font_file(path: str) -> str:
    """A font's path; `package:NAME/PATH` lies in an installed Python package."""
    name, _, rest = path.removeprefix(PACKAGE).partition("/")
    if not path.startswith(PACKAGE):
        return path
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        raise InvalidInputError(f"the font {path} cannot be read: there is no package {name!r}; pip install it")
    return str(Path(spec.origin).parent / rest)


def _check(text: str, font: FreeTypeFont) -> None:
    if len(text) > MAX_CHARS:
        raise InvalidInputError(f"the text has {len(text):,} characters, and {MAX_CHARS:,} are drawn at most")
    for letter in sorted(set(text)):
        if not letter.isspace() and not _has_letter(font, letter):
            raise InvalidInputError(
                f"the font {font.getname()[0]} has no letter for {letter!r} (U+{ord(letter):04X}): "
                "name fonts that do, such as package:matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf"
            )


@cache
def _has_letter(font: FreeTypeFont, letter: str) -> bool:
    """Tests whether a letter looks other than what stands for those that a font lacks."""
    missing = font.getmask("\U0010ffff")
    mask = font.getmask(letter)
    return (mask.size, bytes(mask)) != (missing.size, bytes(missing))
