"""Text as pictures: the same text is the same pixels, lines have room, and no letter is silently a box."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image, ImageChops
from pydantic import ValidationError

from perilune.errors import InvalidInputError
from perilune.images import read_image
from perilune.images.rendering import INK, RenderTable, drawn_content, is_drawn, render_text

DEJAVU = "package:matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf"
MONO = "package:matplotlib/mpl-data/fonts/ttf/DejaVuSansMono.ttf"
CODE = "def f(x):\n    return x + 1"


def table(**keys: Any) -> RenderTable:
    return RenderTable(**{"width": 200, "min_size": 16, "max_size": 16} | keys)


def ink_box(image: Image.Image) -> tuple[int, int, int, int]:
    """Where something is drawn."""
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    assert box
    return box


def test_the_same_text_is_the_same_pixels() -> None:
    sizes = table(min_size=10, max_size=40)
    texts = [f"{number} + 7" for number in range(8)]
    images = [render_text(text, sizes) for text in texts]
    assert [each.tobytes() for each in images] == [render_text(text, sizes).tobytes() for text in texts]
    assert len({each.tobytes() for each in images}) == 8
    assert len({each.height for each in images}) > 1  # letters of other sizes


def test_long_texts_go_on_in_the_next_line_within_the_margins() -> None:
    for text in (
        "many words " * 10,
        "averylongword" * 10,
        CODE * 5,
        "| a | b |\n|---|---|\n| " + "cell " * 20 + "| 2 |",
    ):
        for layout in ("auto", "prose", "code"):
            image = render_text(text, table(layout=layout, margin=10))
            left, top, right, bottom = ink_box(image)
            assert right <= 200
            assert layout == "code" or (left >= 9 and right <= 192)
            assert top >= 9
            assert bottom <= image.height - 4
    assert render_text("a", table()).height < render_text("a\nb", table()).height
    assert render_text("a", table(height=300)).height == 300


def test_code_keeps_its_columns() -> None:
    image = render_text("iii|\nMMM|", table(layout="code", margin=0))
    rows = [image.crop((0, top, 200, top + 21)) for top in (0, 21)]
    bars = [max(x for x in range(200) if row.getpixel((x, 10))[0] < 100) for row in rows]  # type: ignore[index,operator]
    assert abs(bars[0] - bars[1]) <= 1
    fenced = render_text(f"```python\n{CODE}\n```", table(margin=0))
    assert fenced.tobytes() == render_text(CODE, table(layout="code", margin=0)).tobytes()


def test_a_markdown_table_is_drawn_in_frames() -> None:
    image = render_text("| a | b |\n|---|---|\n| 1 | 2 |", table())
    assert image.getpixel((8, 20)) == (120, 120, 120)
    assert image.getpixel((100, 20)) == (120, 120, 120)


def test_noise_is_of_the_text_too() -> None:
    plain, noisy = render_text("7 + 8", table()), render_text("7 + 8", table(noise=0.5))
    assert noisy.tobytes() == render_text("7 + 8", table(noise=0.5)).tobytes()
    assert len(set(noisy.get_flattened_data())) > 1000 > len(set(plain.get_flattened_data()))
    assert INK in plain.get_flattened_data()


def test_a_letter_that_the_font_lacks_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match=r"Aileron has no letter for 'é' \(U\+00E9\): name fonts that do"):
        render_text("café", table())
    assert render_text("café ≤ π", table(fonts=[DEJAVU])).tobytes() != render_text("caf", table(fonts=[MONO])).tobytes()
    with pytest.raises(InvalidInputError, match="DejaVu Sans has no letter for '你'"):
        render_text("你", table(fonts=[DEJAVU]))


@pytest.mark.parametrize("font", ["absent.ttf", "package:nosuch/a.ttf", "package:matplotlib/a.ttf"])
def test_a_font_that_cannot_be_read_is_an_error(font: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        render_text("a", table(fonts=[font]))


def test_a_text_that_is_too_long_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="20,000 are drawn at most"):
        render_text("a" * 20_001, table())
    with pytest.raises(InvalidInputError, match="shorten it"):
        render_text("\n" * 19_000, table(width=4096, min_size=128, max_size=128))


@pytest.mark.parametrize("keys", [{"min_size": 20, "max_size": 10}, {"width": 30}, {"width": 5000}, {"noise": 2}])
def test_keys_that_do_not_fit_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        table(**keys)


def test_a_share_is_chosen_by_the_text_and_shown_in_parts() -> None:
    chosen = [is_drawn(f"{number}", table(share=0.25)) for number in range(2000)]
    assert 400 < sum(chosen) < 600
    image, text = drawn_content("7 + 8", table(text="Answer the question in the picture."))
    assert read_image(image["bytes"]).tobytes() == render_text("7 + 8", table()).tobytes()
    assert text == {"type": "text", "text": "Answer the question in the picture."}
    assert len(drawn_content("7 + 8", table())) == 1
