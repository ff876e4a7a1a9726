"""What a model wrote does not steer the terminal."""

from __future__ import annotations

import io

from rich.table import Table
from rich.text import Text

from perilune.cli.console import Console, harmless

HOSTILE = "\x1b]0;title\x07\x1b[2J\x1b]52;c;ZXZpbA==\x07\x9b31m\u202efdp.exe\r\x08\x7f"


def test_no_text_reaches_the_terminal_as_a_command() -> None:
    for is_terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, force_terminal=is_terminal, width=100)
        table = Table("response", title=HOSTILE)
        table.add_row(HOSTILE)
        table.add_row(Text(HOSTILE, style="red"))
        console.print(HOSTILE, table, Text(HOSTILE), markup=False)
        said = out.getvalue()
        assert not set(said) & set("\x07\x08\x9b\r\x7f\u202e")
        assert "\x1b]" not in said
        assert "\x1b[2J" not in said
        assert ("\x1b[31m" in said) == is_terminal  # rich's own colour


def test_lines_and_tabs_stay() -> None:
    assert harmless("a\tb\n\x1b[0m\x00") == "a\tb\n␛[0m␀"
