"""Which part of a response is its answer. Only the last one that was committed to counts."""

from __future__ import annotations

import re

_THINKING_TAG = re.compile(r"<(/?)(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
_ANNOUNCEMENT = re.compile(r"\banswer\s*(?:is|:|=)\s*:?\s*", re.IGNORECASE)
# What may stand between two boxes that together are one answer.
_BETWEEN_BOXES = re.compile(r"[\s,;$]*(?:\b(?:and|or)\b[\s,;$]*|\\text\{\s*(?:and|or)\s*\}[\s,;$]*)?")


def without_thinking(response: str) -> str:
    """The response without its thinking: blocks in tags, what precedes a lone closing tag (its opening one was part
    of the prompt), and what follows one that never closes."""
    kept: list[str] = []
    position, thinking = 0, False
    for tag in _THINKING_TAG.finditer(response):
        closing = bool(tag[1])
        if not thinking and closing:
            kept.clear()
        elif not thinking:
            kept.append(response[position : tag.start()])
        thinking = not closing
        position = tag.end()
    if not thinking:
        kept.append(response[position:])
    return "".join(kept)


def after_marker(text: str, marker: str) -> str | None:
    """What follows the last marker, to the end. None if the marker is missing."""
    _, found, answer = text.rpartition(marker)
    return answer.strip() if found else None


def boxed(text: str) -> str | None:
    r"""What the last `\boxed{...}` holds; boxes joined by a comma, `and` or `or` are one answer of several parts."""
    boxes: list[tuple[int, str, int]] = []  # start, content, end
    for start in _BOX.finditer(text):
        if boxes and start.start() < boxes[-1][2]:
            continue  # inside the one before
        end = _closing_brace(text, start.end())
        if end is not None:
            boxes.append((start.start(), text[start.end() : end].strip(), end + 1))
    if not boxes:
        return None
    parts = [boxes[-1][1]]
    for earlier, later in zip(reversed(boxes[:-1]), reversed(boxes[1:]), strict=True):
        if not _BETWEEN_BOXES.fullmatch(text, earlier[2], later[0]):
            break
        parts.insert(0, earlier[1])
    return ", ".join(dict.fromkeys(parts))


def announced(text: str) -> str | None:
    """What follows the last `answer is` or `answer:`, to the end of its line or sentence."""
    found = list(_ANNOUNCEMENT.finditer(text))
    if not found:
        return None
    line = text[found[-1].end() :].strip().partition("\n")[0]
    return re.split(r"\.(?:\s|$)", line, maxsplit=1)[0].strip(" *")


def committed(response: str, marker: str = "") -> str | None:
    """The answer of a response, wherever it stands: after the marker if one is asked for, else in the last box, after
    `answer is`, or the last line. None if there is none."""
    text = without_thinking(response)
    if marker:
        after = after_marker(text, marker)
        return after and (boxed(after) or after)
    found = boxed(text) or announced(text)
    if found:
        return found
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def _closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for position in range(start, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    return None
