"""Answers in words: the same words, or others for the same, and never their negation."""

from __future__ import annotations

import re

# Each row is one meaning.
_MEANINGS = """
no solution|no solutions|no real solution|no such|none exist|empty set|\\emptyset|\\{\\}|无解|没有解|空集
does not exist|dne|doesn't exist|undefined|不存在|nonexistent
yes|是|是的
no|否|不是
true|correct|正确|对|right
false|incorrect|wrong|错误|错|不正确|不对
infinitely many|infinite|infinitely|无穷多|无数
\\infty|positive \\infty|infinity|+\\infty|positive infinity|正无穷
-\\infty|negative \\infty|minus \\infty|negative infinity|minus infinity|负无穷
\\mathbb{R}|all real|all reals|all real numbers|reals|real numbers|r|全体实数|实数集
impossible|not possible|cannot be determined
equal|the same
""".strip()
_MEANING = {phrase: row.split("|")[0] for row in _MEANINGS.splitlines() for phrase in row.split("|")}

# Words that may be there or not.
_FILLER_WORDS = """
a an the is are it its there they answer number numbers function functions solution solutions series sequence curve
graph limit option choice shape set value so thus hence therefore of integral statement
"""
_FILLERS = frozenset(_FILLER_WORDS.split())
_NEGATIONS = re.compile(
    r"\b(?:not|no|never|non|neither|nor|isn't|aren't|doesn't|don't|can't|cannot|none)\b|n't\b|\bnon|[不非未没无否]"
)
_SUBJECT = re.compile(r"^.*\b(?:is|are|was|were|be|equals)\s+(?=\S)", re.DOTALL)
_CHINESE_SUBJECT = re.compile(r"^(?:.*(?:答案|结果|结论|此?方程|该?图形)?(?:是|为|：|:)|此?方程|原方程|该?函数)")
_CHOICE = re.compile(r"^\(?([A-Z])\)?$")
_CHOICE_AND_TEXT = re.compile(r"^(?:\(([A-Z])\)|([A-Z])[.:)]|([A-Z])(?=\s+[A-Z][a-z]))\s*(\S.*)?$", re.DOTALL)
MAX_SURE_WORDS = 4  # a longer reference may be said in ways that only a judge knows


def symbol_of(words: str) -> str | None:
    """The symbol that stands for a phrase: \\infty for `infinity`."""
    symbol = _MEANING.get(words, "")
    return symbol if symbol.startswith(("\\inf", "-\\inf", "\\mathbb")) else None


def plain(text: str) -> str:
    """Words without marks of LaTeX, quotes and punctuation around them, in lower case."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    return " ".join(text.strip(" \"'.,;:!?*_").casefold().split())


def is_text(text: str) -> bool:
    """Whether it is a word or several, and no formula."""
    if _CHOICE.match(text) or text.strip() in _MEANING or plain(text) in _MEANING:
        return True
    bare = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip()
    if re.search(r"[^\W\d_a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", bare)):
        return True
    if re.search(r"[=<>^_\\+*/{}]|\d", bare):
        return r"\text" in text and not re.search(r"[=<>^_+*/]", bare) and len(re.findall(r"[a-zA-Z]{2,}", bare)) > 1
    return re.search(r"[a-zA-Z]{3,}", bare) is not None or (r"\text" in text and bare.replace(" ", "").isalpha())


def choice_letter(text: str) -> str | None:
    """The letter of `C`, `(C)`, `C.` and `C. because ...`; None for other text."""
    bare = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip(" *\"'")
    if match := _CHOICE.match(bare.rstrip(".:,")):
        return match[1]
    if match := _CHOICE_AND_TEXT.match(bare):
        return match[1] or match[2] or match[3]
    return None


def same_words(reference: str, answer: str) -> bool | None:
    """Whether two texts say the same; None where they differ and the reference is too long to be sure."""
    if (letter := choice_letter(reference)) is not None and len(letter) == 1:
        if choice_letter(answer) == letter:
            return True
        match = _CHOICE_AND_TEXT.match(reference)
        return bool(match and match[4] and plain(match[4]) == plain(answer))
    wanted, found = plain(reference), plain(answer)
    if wanted == found or _meaning(wanted) == _meaning(found):
        return True
    if len(wanted) == 1:
        return False
    if bool(_NEGATIONS.search(wanted)) != bool(_NEGATIONS.search(found)):
        return False
    if "\\" in wanted or "\\" in found:
        return False
    left, right = _content(wanted), _content(found)
    if left and left == right:
        return True
    if len(left) > MAX_SURE_WORDS and left & right:
        return None
    return False


def _meaning(text: str) -> str:
    """What stands for all phrases of one meaning; the subject of a sentence is left away."""
    text = re.sub(r"\bno such \w+(?: exists?)?", "no such", text)
    for sentence in (
        text,
        _SUBJECT.sub("", text),
        _CHINESE_SUBJECT.sub("", text),
        re.sub(r"^the \w+ (?=does)|^there (?:is|are) ", "", text),
    ):
        phrase = re.sub(r"^(?:a|an|the)\s+", "", sentence)
        if phrase in _MEANING:
            return _MEANING[phrase]
    return text


def _content(text: str) -> frozenset[str]:
    text = _CHINESE_SUBJECT.sub("", text) if not text.isascii() else _SUBJECT.sub("", text)
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.replace("-angled", ""))
    return frozenset(_stem(word) for word in words if word not in _FILLERS and not (len(word) == 1 and word.isascii()))


def _stem(word: str) -> str:
    return (
        re.sub(r"(?:ence|ent|ing|es|s|e)$", "", word)
        if len(word) > 5
        else word.removesuffix("s")
        if len(word) > 3
        else word
    )
