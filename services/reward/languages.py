"""Says which language a text is in, of the 97 that py3langid knows."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

# Codes of one language, or of several that nothing written tells apart.
_SAME = {
    "nb": "no", "nn": "no", "iw": "he", "in": "id", "fil": "tl", "bs": "hr", "cmn": "zh", "jp": "ja", "kr": "ko",
}  # fmt: skip
# Languages in scripts of their own: no text in Latin letters is in one of them.
_NOT_LATIN = frozenset(
    "am ar as be bg bn dz el fa gu he hi hy ja ka kk km kn ko ky lo mk ml mn mr ne or pa ps ru si ta te th ug uk"
    " ur zh".split()
)
FEW_LETTERS, FEW = 20, 5  # of so few Latin letters, the likeliest language is a guess among so many
MAX_CHARS = 20_000
_CODE = re.compile(r"[a-z]{2,3}(?:[-_][a-zA-Z]{2,8})*")


def check_language(code: str) -> str:
    """The code of a language without its region. ValueError if it is not known."""
    language = re.split("[-_]", code.strip().lower())[0] if _CODE.fullmatch(code.strip().lower()) else ""
    if _SAME.get(language, language) not in {_SAME.get(each, each) for each in _identifier().labels}:
        raise ValueError(f"language {code!r} is not known; known are ISO 639-1 codes such as 'en', 'fa' and 'zh'")
    return _SAME.get(language, language)


def is_in(text: str, code: str) -> bool:
    """Tests whether a text is in a language; one without letters is in all. ValueError for a language that is not
    known."""
    language = check_language(code)
    text = text[:MAX_CHARS].lower()
    num_letters = sum(map(str.isalpha, text))
    if not num_letters:
        return True
    is_short = text.isascii() and num_letters <= FEW_LETTERS
    if text.isascii():
        text = re.sub(r"[\W\d_]+", " ", text)
        if language in _NOT_LATIN:
            return False
    likeliest = [_SAME.get(label, label) for label, _ in _identifier().rank(text)]
    return language in likeliest[: FEW if is_short else 1]


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # reads its model, for a quarter of a second

    return LanguageIdentifier.from_model_file(MODEL_FILE)  # type: ignore[no-untyped-call]
