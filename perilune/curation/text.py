"""A question's text as curation compares it: cleaned, its words, and what two questions of one meaning share."""

from __future__ import annotations

import re
import unicodedata

_CONTROL = {code: None for code in range(32) if chr(code) not in "\n\t"} | {0x7F: None, 0xFEFF: None, 0xFFFD: None}
_INVISIBLE = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0x00AD])
_LABEL = re.compile(
    r"""^\s*(?:
        (?:problem|question|exercise|example|task|item|q|ex|no)\s*\.?\s*\#?\s*\d+\s*[.:)\-]?  # Problem 12:
      | [\(\[]\s*(?:\d{1,4}|[a-z]|[ivx]{1,5})\s*[\)\]]                                        # (3) [a]
      | (?:\d{1,4}|[a-z])\s*[.:)](?=\s)                                                       # 7.  b)
      | [\-*•]\s
    )\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s]")
_PUNCTUATION = re.compile(r"^[^\w+\-*/^=<>%$€£]$")


def cleaned(text: str) -> str:
    """Text in Unicode's composed form, without control and invisible characters, with plain line ends and blanks.

    >>> cleaned("  What\\u200b is\\r\\n\\r\\n\\r\\n 2 +\\u00a02?  ")
    'What is\\n\\n2 + 2?'
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = text.translate(_CONTROL | _INVISIBLE).replace("\u00a0", " ")
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def without_label(text: str) -> str:
    """A question without the number that a list gave it; a number that the question begins with stays.

    >>> without_label("Problem 12: (a) Find x"), without_label("3 apples cost 2"), without_label("3.5 apples")
    ('Find x', '3 apples cost 2', '3.5 apples')
    """
    for _ in range(3):
        shorter = _LABEL.sub("", text, count=1)
        if shorter == text or not shorter:
            return text
        text = shorter
    return text


def words(text: str) -> list[str]:
    """Words, numbers and signs of mathematics, folded to one case; other punctuation is left out.

    >>> words("Find X, if  x+1 = 3.")
    ['find', 'x', 'if', 'x', '+', '1', '=', '3']
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [word for word in _WORD.findall(folded) if not _PUNCTUATION.match(word)]


def same_text_key(text: str) -> str:
    """A key that questions share which differ in case, blanks, punctuation and list numbers alone."""
    return " ".join(words(without_label(cleaned(text))))


def numbers(text: str) -> list[str]:
    """The numbers of a question in their order, without a list's: two questions with other ones ask other things."""
    return _NUMBER.findall(without_label(text))
