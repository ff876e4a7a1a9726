r"""Marks of options and parts: `①③`, `I and III`, `\textbf{(B)} 12`, `(1) 3; (2) 4`."""

from __future__ import annotations

import re

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ROMAN = re.compile(r"(?:x{0,1}(?:ix|iv|v?i{0,3}))", re.IGNORECASE)
_CAN_BE_MARKS = re.compile(r"\s*(?:\\text|only\b|\(|[1-9],|[A-Ja-hivxIVX](?![a-hj-uwyzA-HJ-UWYZ]{2}))")
MAX_CHARS = 60
_BETWEEN = re.compile(r"\s*(?:[,;、/&]|\band\b|和|与)\s*|\s+")
_IN_BRACKETS = re.compile(r"^(?:\(\w{1,4}\)\s*){2,}$")
_PART = re.compile(r"(?:^|(?<=[,;.\s]))\(([1-9]|[a-h]|i{1,3}|iv|v)\)\s*")
_ORDERS = ("123456789", "abcdefgh", ("i", "ii", "iii", "iv", "v"))
_OPTION = re.compile(r"^\(([A-J])\)[ ~]*(\S.*)$", re.DOTALL)


def read_marks(text: str) -> frozenset[str] | None:
    """The Roman numerals, letters in brackets, or digits in brackets, that a text lists; None for other text."""
    if len(text) > MAX_CHARS or not _CAN_BE_MARKS.match(text):
        return None
    text = re.sub(r"^only |[,\s]*\bonly$|\.$", "", _TEXT.sub(r" \1 ", text).strip()).strip()
    if _IN_BRACKETS.match(text):
        text = text.replace(")", "),").strip(" ,")
    tokens = [token for token in _BETWEEN.split(text) if token]
    bare = [token.strip("().") for token in tokens]
    if len({*bare}) < len(bare):
        return None
    if all(token and _ROMAN.fullmatch(token) for token in bare):
        return frozenset(token.lower() for token in bare)
    bracketed = all(token[:1] == "(" and token[-1:] == ")" for token in tokens)
    if not bracketed and any(token[:1] == "(" for token in tokens):
        return None
    if len(bare) > 1 and all(re.fullmatch(r"\d{1,2}" if bracketed else r"[1-9]", token) for token in bare):
        return frozenset(bare)
    if bracketed and all(re.fullmatch(r"[a-zA-Z]", token) for token in bare):
        return frozenset(bare)
    if len(bare) > 1 and all(re.fullmatch(r"[A-Ja-h]", token) for token in bare):
        return frozenset(bare)
    return None


def split_option(text: str) -> tuple[str, str] | None:
    """The letter and the text of `\\textbf{(B)} 12`; None if one of them is missing."""
    match = _OPTION.match(_TEXT.sub(r"\1", text).strip())
    return (match[1], match[2].strip()) if match else None


def read_parts(text: str) -> list[str] | None:
    """The answers of `(1) 3; (2) 4`, in their order; None if they are not numbered from the first on."""
    found = list(_PART.finditer(text))
    if len(found) < 2 or found[0].start():
        return None
    marks = [match[1] for match in found]
    if not any(marks == list(order[: len(marks)]) for order in _ORDERS):
        return None
    ends = [match.start() for match in found[1:]] + [len(text)]
    parts = [text[match.end() : end].strip(" ,;.") for match, end in zip(found, ends, strict=True)]
    return parts if all(parts) else None
