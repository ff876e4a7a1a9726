"""The fenced blocks of a response, outside its thinking. Time is linear in the text, whatever it holds.

A fence of backticks or tildes opens a block, also behind a list's mark or at the end of a sentence, and closes it only
on a line of its own, with the opening's indent and at least its length. What looks like a thinking tag or a fence
inside a block, or a string of Python, belongs to the block.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.reward.answer_extraction import THINKING_TAG

_OPENING = re.compile(r"^([^`~]*+)(`{3,}+|~{3,}+)([^`\r]*+)\r?$")
_MARKS = re.compile(r"[ \t]*(?:(?:[-*+>]|\d{1,9}[.)])[ \t]*)*")
_QUOTE = re.compile(r"^[ \t]*> ?")
_TAG = re.compile(r"[ \t]*(?:\{\s*\.?)?([\w+#.-]*)")
_RUN = re.compile(r"^([ \t]*)(`+|~+)[ \t]*\r?$")
_STRINGS = re.compile(r"\"\"\"|'''|#.*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\\.")
_END_OF_TURN = re.compile(r"(?:<\|[\w|]{1,30}\|>|</s>)$")
_PATIENCE = 3  # how many blocks without a proper end are read a second time


@dataclass(frozen=True)
class Block:
    """Describes what is in a fence; `tag` is the first word behind the opening, in lower case."""

    tag: str
    text: str


@dataclass(frozen=True)
class Answer:
    """A response without its thinking: its text, fences and all, and its blocks in their order."""

    text: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class _Fence:
    run: str
    tag: str
    width: int
    is_quoted: bool

    def inside(self, line: str) -> str:
        """A line of the block as it stands in the response, less a quotation's mark."""
        return _QUOTE.sub("", line, count=1) if self.is_quoted else line

    def dedented(self, line: str) -> str:
        line = self.inside(line).removesuffix("\r")
        indent = len(line) - len(line.lstrip(" \t"))
        return line[min(indent, self.width) :]

    def closing_indent(self, line: str) -> int | None:
        """The indent of a line that could close the block; None for any other."""
        found = _RUN.match(self.inside(line)) if self.run[0] in line else None
        closes = found and found[2][0] == self.run[0] and len(found[2]) >= len(self.run)
        return len(found[1]) if found and closes else None


def read_answer(response: str) -> Answer:
    """The response's text and its fenced blocks, both without its thinking (see `without_thinking`)."""
    reader = _Reader(_without_end_of_turn(response).split("\n"))
    reader.read()
    return Answer("\n".join(reader.kept), reader.blocks)


def _without_end_of_turn(response: str) -> str:
    text = response.rstrip()
    found = _END_OF_TURN.search(text, max(0, len(text) - 40))
    return text[: found.start()] if found else response


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.kept: list[str] = []
        self.blocks: list[Block] = []
        self.patience = _PATIENCE
        self.is_thinking = False

    def read(self) -> None:
        at = 0
        while at < len(self.lines):
            spoken = self.spoken(self.lines[at])
            at += 1
            if spoken is None:
                continue
            fence = _opened(spoken)
            self.kept.append(spoken)
            if fence:
                at = self.block(fence, at)

    def spoken(self, line: str) -> str | None:
        """Returns what of a line outside of blocks is no thinking; None if all of it is."""
        rest, position, began_thinking = "", 0, self.is_thinking
        for tag in THINKING_TAG.finditer(line):
            if _is_quoted(line, tag.start(), tag.end()):
                continue
            closes = bool(tag[1])
            if closes and not self.is_thinking:  # what its opening tag, in the prompt, began
                self.kept.clear()
                self.blocks.clear()
                rest = ""
            elif not self.is_thinking:
                rest += line[position : tag.start()]
            self.is_thinking, position = not closes, tag.end()
        if not self.is_thinking:
            rest += line[position:].lstrip(" \t") if position else line
        return None if self.is_thinking and began_thinking and not rest else rest

    def block(self, fence: _Fence, start: int) -> int:
        """Takes the block that begins here; the line behind it."""
        end, after = self.end_of(fence, start)
        inside = self.lines[start:end]
        thought = _thought(inside, is_closed=after > end) if self.patience else None
        if thought is not None:
            self.patience -= 1
            return start + thought
        text = "\n".join(map(fence.dedented, inside)) + ("\n" if after > end and inside else "")
        self.blocks.append(Block(fence.tag, text))
        self.kept.extend(self.lines[start:after])
        return after

    def end_of(self, fence: _Fence, start: int) -> tuple[int, int]:
        """Returns where the block's lines end, and where what follows it begins; the same where it is never closed."""
        string, second_best = "", None
        for at in range(start, len(self.lines)):
            indent = fence.closing_indent(self.lines[at])
            if indent == fence.width and not string:
                return at, at + 1
            if indent is not None and indent <= fence.width and second_best is None:
                second_best = at
            if self.patience:
                string = _string_after(fence.inside(self.lines[at]), string)
        if second_best is None or not self.patience:
            return len(self.lines), len(self.lines)
        self.patience -= 1
        return second_best, second_best + 1


def _opened(line: str) -> _Fence | None:
    found = _OPENING.match(line)
    if not found:
        return None
    lead, run, info = found.groups()
    tag = _TAG.match(info)
    assert tag  # it matches anything
    if _MARKS.fullmatch(lead):
        is_quoted = ">" in lead
        width = len(lead[lead.rindex(">") + 1 :].removeprefix(" ")) if is_quoted else len(lead)
        return _Fence(run, tag[1].lower(), width, is_quoted)
    if run[0] == "`" and tag[1] and not info[tag.end() :].strip():  # at the end of a sentence, for a language
        return _Fence(run, tag[1].lower(), len(line) - len(line.lstrip(" \t")), is_quoted=False)
    return None


def _is_quoted(line: str, start: int, end: int) -> bool:
    """Tests whether a tag is spoken of, or a string of a program."""
    before = line[max(0, start - 2) : start]
    return before[-1:] in ("'", '"', "`") and before != "``" and line[end : end + 1] == before[-1:]


def _thought(inside: Sequence[str], is_closed: bool) -> int | None:
    """Returns where the thinking ends that this block, left open, was a part of: at a tag on a line of its own
    behind which another block opens, or no end comes. None for a block that is none."""
    for at, line in enumerate(inside):
        tag = THINKING_TAG.fullmatch(line.strip())
        if tag and tag[1]:
            later = [found for found in map(_opened, inside[at + 1 :]) if found and found.tag]
            return at if later or (not is_closed and any(map(str.strip, inside[at + 1 :]))) else None
    return None


def _string_after(line: str, string: str) -> str:
    """The triple quote that is open behind a line of Python, where `string` was before it."""
    position = 0
    if not string and '"""' not in line and "'''" not in line:
        return ""
    while True:
        if string:
            end = re.compile(rf"\\.|{string}").search(line, position)
            if not end:
                return string
            string = string if end[0][0] == "\\" else ""
        else:
            end = _STRINGS.search(line, position)
            if not end:
                return ""
            string = end[0] if end[0] in ('"""', "'''") else ""
        position = end.end()
