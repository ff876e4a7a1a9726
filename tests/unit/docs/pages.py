"""The docs as data: their files, code blocks, tables and the names between backticks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]  # as tests are called

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    text: str


def blocks_of(text: str) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall(text)]


def prose_of(text: str) -> str:
    """The text without its blocks of code."""
    return _BLOCK.sub("", text)


def quoted_in(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", prose_of(text))


def headings_of(text: str) -> list[str]:
    return [title for _, title in _HEADING.findall(prose_of(text))]


def anchor(heading: str) -> str:
    """A heading's name in links, as GitHub makes it.

    >>> anchor("Cheating, `exec` and Q&A")
    'cheating-exec-and-qa'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections_of(text: str) -> dict[str, str]:
    """A page's parts by their headings of the second level."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows_of(text: str) -> list[list[str]]:
    """The rows of all tables, cell by cell; a bar inside backticks is text."""
    rows = [line.strip().strip("|") for line in prose_of(text).splitlines() if line.startswith("|")]
    cells = [re.split(r"\|(?=(?:[^`]*`[^`]*`)*[^`]*$)", row) for row in rows]
    return [[cell.strip() for cell in row] for row in cells if not set("".join(row)) <= set("-: ")]
