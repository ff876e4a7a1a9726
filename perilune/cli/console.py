"""The terminal: what a model or a stranger wrote does not steer it.

A response may hold escape sequences, which move the cursor, rename the window or fill the clipboard. Rich lets them
through; here each control character is shown as a picture of itself, wherever the text came from.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console as RichConsole
from rich.segment import Segment

UNSEEN = "\ufffd"
_BIDIRECTIONAL = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # which write text backwards
_SHOWN = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
    **dict.fromkeys((*range(0x80, 0xA0), *_BIDIRECTIONAL), UNSEEN),
}


def harmless(text: str) -> str:
    """The text with each control character replaced by one that is seen; tabs and ends of lines stay."""
    return text.translate(_SHOWN)


class Console(RichConsole):
    """Rich's console, whose texts are harmless; its own control sequences are not touched."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            segment if segment.control else Segment(harmless(segment.text), segment.style) for segment in buffer
        )
