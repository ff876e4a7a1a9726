"""Sentences of a text: they end inside quotes, and not behind `Dr.`, in `3.14` or in `A. B. C.`."""

from __future__ import annotations

import re

_END = re.compile(r"([.!?]+|…)([\"'”’)\]*_]*)(?=\s|$)|[。！？]+[」』”’）]*")
_SPACE = re.compile(r"\s*[\"'“‘(\[*_-]*")
# Behind these a point ends no sentence: titles before a name, and what stands before a number or in the middle.
_TITLES = frozenset(
    "mr mrs ms mx dr prof rev fr st hon gov sen rep gen col capt lt sgt cmdr pres messrs mme mlle".split()
)
_MIDDLE = frozenset(
    "vs etc al approx ca cf dept est fig figs no nos vol pp ed eds inc ltd co corp jr sr ave blvd rd mt ft jan feb mar"
    " apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri".split()
)
_LATIN = re.compile(r"\b(?:ph\.d|[a-z](?:\.[a-z])+)$", re.IGNORECASE)  # e.g., a.m., U.S.
_WORD = re.compile(r"[^\W\d_]+$")
_NUMBERED = re.compile(r"(?:^|\n)[\s\"'(]*\d{1,3}$")  # `1. First`
_NEXT = re.compile(r"[^\W\d_]+")
# Words that begin a sentence where what stands before is a short form.
_STARTERS = frozenset(
    "the he she it this that these those they we you there in on at but and however then when while if as for after"
    " before so his her its my our their what who how why where".split()
)


def count_sentences(text: str) -> int:
    """Returns how many sentences a text has; what is left behind the last one counts too."""
    ends = [match.end() for match in _END.finditer(text) if _is_end(text, match)]
    parts = zip([0, *ends], [*ends, len(text)], strict=True)
    return sum(any(map(str.isalnum, text[start:stop])) for start, stop in parts)


def _is_end(text: str, match: re.Match[str]) -> bool:
    """Tests whether a sentence ends at a mark that could be its end."""
    mark, quotes = match[1], match[2]
    if mark is None:
        return True  # ideographic
    space = _SPACE.match(text, match.end())
    behind = text[space.end() : space.end() + 20] if space else ""
    if mark != ".":
        return not behind[:1].islower() if quotes or mark in ("...", "…") else True
    return not behind or not _is_short(text[max(0, match.start() - 30) : match.start()], behind)


def _is_short(before: str, behind: str) -> bool:
    """Tests whether a point belongs to a short form, an initial or a number, and no new sentence follows."""
    word = _WORD.search(before)
    last = word[0].lower() if word else ""
    if last in _TITLES or _NUMBERED.search(before):
        return True
    following = _NEXT.match(behind)
    starts_anew = bool(following and following[0][0].isupper() and following[0].lower() in _STARTERS)
    is_initial = len(last) == 1 and last != "i"
    return (last in _MIDDLE or is_initial or _LATIN.search(before) is not None) and not starts_anew
