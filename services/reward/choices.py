"""Says which option of a multiple choice a text commits to, by its letter."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_SPAN = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]|\*\*(.+?)\*\*|__(.+?)__", re.DOTALL)
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|boxed|fbox)\s*\{([^{}]*)\}")
_ONE = r"(?:(?:options?|choices?|answers?|选项|the)\s*){0,3}\(?[A-J]\)?(?![A-Za-z0-9])"
_LIST = rf"{_ONE}(?:\s*(?:,\s*(?:and|or)?|、|/|&|-|–|\b(?:and|or|to|through)\b|和|与|或|及)\s*{_ONE}){{0,9}}"
_PAIR = rf"{_ONE}(?:\s*(?:/|&|\band\b|\bor\b|和|与|或)\s*{_ONE}){{0,9}}"
_SERIES = rf"{_ONE}(?:\s*,\s*{_ONE}){{0,9}},?\s*(?:\band\b|\bor\b|和|或)\s*{_ONE}"
# What is named only to be put aside, or compared with.
_ELIMINATED = (
    r"(?:\b(?:eliminat(?:e|es|ed|ing)|rul(?:e|es|ed|ing) out|exclud(?:e|es|ed|ing)|reject(?:s|ed|ing)?"
    r"|discard(?:s|ed|ing)?|cross(?:es|ed|ing)? out|dismiss(?:es|ed|ing)?|none of)|排除)"
)
_COMPARED = (
    r"(?:\b(?:rather than|instead of|as opposed to|over|beats?|beating|outperforms?|than|unlike|not|n't|nor|neither"
    r"|without|between|among|amongst|from|compar(?:e|ed|ing)|(?:preferable|superior) to|of|versus|vs\.?)\b"
    r"|而不是|而非|不是|不选|除了|优于|>)"
)
_PUT_ASIDE = re.compile(
    rf"(?:{_ELIMINATED}\s*(?:both |all of |any of )?{_LIST}"
    rf"|{_COMPARED}\s*(?:both |either |any of )?(?:{_SERIES}|{_PAIR}))",
    re.IGNORECASE,
)
_PREFERRED_TO = re.compile(rf"(\bprefer\w*\s+{_ONE})\s+(?:to|over)\s+{_LIST}", re.IGNORECASE)
_WORSE_THAN = re.compile(
    rf"{_LIST}\s+(?:is|are|seems?|looks?)\s+(?:\w+\s+)?(?:worse|weaker|less \w+|inferior)\s+(?:than|to)\s+",
    re.IGNORECASE,
)
_WRONG = (
    r"\b(?:not|no|never|wrong|incorrect|false|fails?|eliminated|excluded|ruled out|out|impossible|worse|weaker|invalid"
    r"|contradicts?|cannot|neither|violates?|lacks?|misses|ignores?|too)\b|n['’]t\b|不|错|误|排除"
)
_IS_WRONG = re.compile(
    rf"{_LIST}\s*(?:(?:both|all)\s+)?(?=(?:\w+\s+)?"
    r"(?:is|are|was|were|has|have|had|looks?|seems?|can|cannot|could|do|does|did"
    r"|fails?|contradicts?|violates?|lacks?|misses|ignores?|would|(?:is|are|does|do|ca)n['’]t|项|选项|都|是|也|均|不|错)"
    rf"(?:(?!\b(?:but|so|therefore)\b|\band\s+{_ONE})[^.,;:，。；])*?(?:{_WRONG}))",
    re.IGNORECASE,
)
_BUT_ONE = r"\b(?:except|but|besides|other than|apart from)\s+(?:for\s+)?(?:option\s+)?\(?([A-J])\)?(?![A-Za-z])"
_ALL_BUT = re.compile(
    rf"\b(?:all|every\w*|each)\b[^.;]*?{_BUT_ONE}(?=[^.;]*(?:{_WRONG}))"
    rf"|\b(?:all|every\w*)\b[^.;]*(?:{_WRONG})[^.;]*?{_BUT_ONE}",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"[,.;:!?。，；：！？\n]|\b(?:therefore|thus|because|since|so|hence|but|leaving|leaves|while|whereas)\b"
    r"|所以|因此|故|因为|但|而|(?=不是|\bnon?t?\b)",
    re.IGNORECASE,
)
_COMMITS = re.compile(
    r"\b(?:answer|choose|chose|choosing|choice is|pick|select|go(?:ing)? with|correct|right|best|better|opt for|wins?"
    r"|conclude|must be|fits?|match(?:es)?|works?|prefer\w*|favou?r|satisf\w+|final|true|remains)\b|选|答案|正确|对",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"\b(?:not|non|isn't|can't|cannot|never|wrong|incorrect|false|none|neither|nor)\b|n['’]t\b|不|错", re.IGNORECASE
)
# A and I are words too: they are letters of options where no word follows that they could belong to.
_AFTER_WORD = r"(?!\s+(?!(?:and|or|is|because|since|are|fits|works|has|must|matches|satisfies|as)\b)[a-z]{2,})"
_LETTER = re.compile(
    rf"(?<![A-Za-z0-9'’\\+*/^_-])\(?(?:([B-HJ])|([AI]){_AFTER_WORD})\)?(?:[选项]|(?![A-Za-z0-9'’_^=+*(]))"
)
_SMALL = re.compile(
    r"\b(?:options?|choices?|answer|letter)\s*(?:is\s*)?[:\s]\s*\(?([a-j])\)?(?![a-z'’])|^\(?([a-j])[).:]\s", re.I
)
_SEVERAL = re.compile(r"\b(?:also|too|as well|both|not only)\b|也|都", re.IGNORECASE)
MAX_CHARS = 4000  # at the end that are looked at


def plain_choice(text: str) -> str:
    """A text without the marks around its letters, and full-width letters as such."""
    text = unicodedata.normalize("NFKC", text[-MAX_CHARS:])
    for pattern in (_TEXT, _SPAN, _TEXT):
        text = pattern.sub(lambda match: next(group for group in match.groups() if group is not None), text)
    return text.replace("\\ ", " ").strip(" *\"'`")


def chosen_letter(text: str) -> str | None:
    """The one option that a text commits to, by its letter; None if it names none, or hedges between several."""
    text = plain_choice(text)
    if lone := re.fullmatch(r"[(\[]?([a-jA-J])[)\]]?[.:]?", text):
        return lone[1].upper()
    if re.fullmatch(r"(?:\W*\(?[A-J]\)?\W*(?:and|or|和|或)?\W*){2,}", text) and "?" not in text:
        return None
    if all_but := _ALL_BUT.search(text):
        return (all_but[1] or all_but[2]).upper()
    if first := _first_clause(text):
        return first
    if small := _SMALL.search(text):
        text = f"{text[: small.start()]} {(small[1] or small[2]).upper()} {text[small.end() :]}"
    for pattern, kept in ((_WORSE_THAN, ""), (_PREFERRED_TO, r"\1"), (_PUT_ASIDE, " "), (_IS_WRONG, " not ")):
        text = pattern.sub(kept, text)
    clauses = [clause for clause in _CLAUSE.split(text) if clause and clause.strip()]
    committing = [clause for clause in clauses if _COMMITS.search(clause)]
    chosen = _last_letter(committing) or _last_letter(clauses)
    return chosen if chosen and len(chosen) == 1 else None


def _first_clause(text: str) -> str | None:
    """`D. It cannot be A or B`, unless it is taken back at once."""
    first, _, rest = (*_CLAUSE.split(text, maxsplit=1), "", "")[:3] if _CLAUSE.search(text) else (text, "", "")
    rest = text[len(first) :]
    if not re.fullmatch(r"\W*[A-J]\W*", first) or re.match(r"\W*(?:no|wait|or)\b|\s*[?？]", rest, re.IGNORECASE):
        return None
    others = {
        letter for match in _LETTER.findall(_IS_WRONG.sub(" ", _PUT_ASIDE.sub(" ", rest))) for letter in match if letter
    }
    if others and re.match(r"\s*[,、/]", rest):
        return None  # `B, C` or more
    return re.sub(r"\W", "", first)


def _last_letter(clauses: Sequence[str]) -> str | None:
    """The letter of the last clause that has one; several where they are put side by side."""
    for place, clause in reversed(list(enumerate(clauses))):
        letters = {letter for found in _LETTER.findall(clause) for letter in found if letter}
        if not letters or _NEGATED.search(clause):
            continue
        if _SEVERAL.search(clause) and place:
            return (_last_letter(clauses[:place]) or "") + "".join(letters)
        return "".join(sorted(letters))
    return None
