"""Lists, sets, tuples and vectors: their elements, and whether these have an order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from services.reward.equality.brackets import closes_at_end, split
from services.reward.equality.matrices import VECTOR, matrix_rows, rows_of
from services.reward.equality.units import is_compound
from services.reward.equality.words import is_text

JOINT = re.compile(r"\s*(?:\\text\{\s*,?\s*(?:and|or|和|或)\s*\}|\b(?:and|or)\b|(?<=[\w)])\s*[和或]\s*(?=[\w(-]))\s*")
_MEMBER_OF_SET = re.compile(r"^[a-z] ?\\in(?=\\\{|\\emptyset)")
_SIGN = re.compile(r"(\\pm|\\mp)(?![a-zA-Z])")
MAX_SIGNS = 4  # sixteen values
_UNIT_VECTORS = re.compile(r"([-+]?[^-+]*?)\\unit([ijk])")
_PLAIN_UNIT_VECTOR = re.compile(r"(?<![a-zA-Z\\])[ijk](?![a-zA-Z])")


def elements(text: str) -> list[str]:
    """The elements of a list, a set or a union of sets; one for anything else."""
    pieces = re.split(r"\\cup(?![a-z])", text)
    if len(pieces) > 1 and all(piece.strip().startswith(r"\{") for piece in pieces):
        return list(dict.fromkeys(part for piece in pieces for part in elements(piece.strip())))
    if is_compound(text):
        return [text]
    text = _MEMBER_OF_SET.sub("", text)
    if text.startswith(r"\{") and text.endswith(r"\}") and closes_at_end(text, 1):
        text = text[2:-2].strip()
        if not text:
            return [r"\emptyset"]
    elif sequence_of(text):
        return with_signs(text)
    elif rows_of(text):
        return [text]
    if is_text(text) and not JOINT.search(text) and "," not in text:
        return [text]
    parts = [part for joined in JOINT.split(text) for part in split(joined, ",;")]
    found = [value for part in parts if part.strip() for value in with_signs(part.strip())] or [text]
    # A point given twice is one; of numbers, it may be a root or a value that is there twice.
    return list(dict.fromkeys(found)) if all(map(sequence_of, found)) else found


def with_signs(text: str) -> list[str]:
    r"""The values of a text with \pm: each sign either way, but all as one where \mp says that they belong together."""
    signs = _SIGN.findall(text)
    if not 0 < len(signs) <= MAX_SIGNS:
        return [text]
    if {r"\pm", r"\mp"} <= {*signs}:
        choices: Iterable[Sequence[str]] = [
            ["+" if sign == first else "-" for sign in signs] for first in (r"\pm", r"\mp")
        ]
    else:
        choices = itertools.product("+-", repeat=len(signs))
    return [_signed(_SIGN.split(text)[::2], chosen) for chosen in choices]


def _signed(parts: Sequence[str], signs: Sequence[str]) -> str:
    text = parts[0]
    for sign, part in zip(signs, parts[1:], strict=True):
        leads = not text.strip() or text.rstrip()[-1] in "=({[,;"
        text += ("" if leads and sign == "+" else sign) + part.lstrip()
    return text


def sequence_of(text: str) -> tuple[str, list[str]] | None:
    """The brackets of an ordered sequence and its elements; `<>` for those of vectors."""
    if match := VECTOR.match(text):
        rows = matrix_rows(match[1])
        if len(rows) == 1 or all(len(row) == 1 for row in rows):
            return "<>", [cell for row in rows for cell in row]
        return None
    for opening, closing in ((r"\langle", r"\rangle"), ("<", ">")):
        if text.startswith(opening) and text.endswith(closing) and "," in text:
            return "<>", split(text[len(opening) : -len(closing)], ",")
    if (
        r"\unit" in text
        and (parts := _UNIT_VECTORS.findall(text))
        and "".join(_UNIT_VECTORS.sub("", text).split()) == ""
    ):
        values = {name: coefficient.strip().removeprefix("+") for coefficient, name in parts}
        names = "ijk" if "k" in values else "ij"
        return "<>", [{"": "1", "-": "-1"}.get(values.get(name, "0"), values.get(name, "0")) for name in names]
    if text[:2] == "-(" and (positive := sequence_of(text[1:])):
        return positive[0], [f"-({item})" for item in positive[1]]
    if text and text[0] in "([" and text[-1] in ")]" and closes_at_end(text):
        items = split(text[1:-1], ",;")
        if len(items) > 1 and all(item.startswith("[") for item in items):
            rows = [split(item[1:-1], ",") for item in items]
            return ("<>", [row[0] for row in rows]) if all(len(row) == 1 for row in rows) else None
        return (text[0] + text[-1], items) if len(items) > 1 else None
    return None


def as_vector(text: str) -> str:
    """`2i - 3j` with its unit vectors marked, `A(1, 2)` without the point's name."""
    if re.search(r"(?<![a-zA-Z\\])j(?![a-zA-Z])", text):
        return _PLAIN_UNIT_VECTOR.sub(r"\\unit\g<0>", text)
    return text[1:] if re.match(r"[A-Z]\(", text) and closes_at_end(text, 1) else text


def set_of(text: str) -> list[str] | None:
    """The members of a set in braces, or of the empty set; None if the text is neither."""
    text = _MEMBER_OF_SET.sub("", text)
    if text == r"\emptyset":
        return []
    if text.startswith(r"\{") and text.endswith(r"\}") and closes_at_end(text, 1):
        return [part for part in split(text[2:-2], ",;") if part]
    return None


def holds_sets(members: Sequence[str] | None) -> bool:
    """Tests whether some members of a set are sets."""
    return any(set_of(member) is not None for member in members or ())
