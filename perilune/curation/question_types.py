"""Question types that make poor prompts for reinforcement learning (k1.5 §2.1): easily guessed, or not verifiable.

Multiple choice, true or false and yes or no are right too often by chance; a proof cannot be checked by its answer; a
question in several parts has several answers. A multiple-choice question whose stem stands alone becomes an open one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from perilune.curation.text import cleaned, without_label

MULTIPLE_CHOICE, TRUE_FALSE, YES_NO, PROOF, SEVERAL_PARTS = (
    "multiple choice", "true or false", "yes or no", "proof", "several parts"
)  # fmt: skip
OPEN = "open"

_MARK = (
    r"(?:\(\s*{letter}\s*\)|\[\s*{letter}\s*\]|\b{letter}\s*[.):]"
    r"|\\textbf\{{\s*\(?{letter}\)?\s*\}}|\\text\{{\s*\(?{letter}\)?\s*\}})"
)


@dataclass(frozen=True)
class Choices:
    """A multiple-choice question taken apart."""

    stem: str
    options: Mapping[str, str]  # letter to text


def type_of(question: str, answer: str = "") -> str:
    """The type of a question: one of the names above, `open` for all others.

    >>> type_of("Is 91 a prime number?", "no"), type_of("What is 2 + 2?", "4"), type_of("Prove that 2 is even.")
    ('yes or no', 'open', 'proof')
    """
    question, answer = without_label(cleaned(question)), cleaned(answer)
    return next((name for name, holds in _RULES if holds(question, answer)), OPEN)


def opened(question: str, answer: str) -> tuple[str, str] | None:
    """A multiple-choice question as an open one, with its answer; None if it needs its options to be understood.

    >>> opened("What is 3 * 4? (A) 7 (B) 12 (C) 34", "B")
    ('What is 3 * 4?', '12')
    """
    choices = choices_of(question)
    if choices is None or _NEEDS_OPTIONS.search(choices.stem) or len(choices.stem.split()) < 3:
        return None
    letter = _letter(answer)
    text = choices.options.get(letter, "") if letter else cleaned(answer)
    if not letter and text not in choices.options.values():
        return None
    return (choices.stem, text) if text and not _ALL_OR_NONE.search(text) else None


def choices_of(question: str) -> Choices | None:
    """The options of a question: three or more in the order of the alphabet, or two that begin lines; None without."""
    for letters in ("ABCDEFGHIJ", "abcdefghij"):
        places = list(_marks(question, letters))
        if len(places) >= 3 or (len(places) == 2 and all(_opens_line(question, start) for start, _ in places)):
            if letters[0] == "a" and not _reads_as_options(question, places):
                continue
            ends = [*[start for start, _ in places[1:]], len(question)]
            texts = [_bare(question[end:stop]) for (_, end), stop in zip(places, ends, strict=True)]
            if all(texts):
                return Choices(_stem(question[: places[0][0]]), dict(zip("ABCDEFGHIJ", texts, strict=False)))
    return None


def _marks(question: str, letters: str) -> Sequence[tuple[int, int]]:
    """Where (A), (B), … are, each behind the one before."""
    found: list[tuple[int, int]] = []
    start = 0
    for letter in letters:
        pattern = re.compile(rf"(?:^|(?<=[\s$,;?.:!\]\)}}])){_MARK.format(letter=letter)}(?=\s|\S)", re.MULTILINE)
        match = pattern.search(question, start)
        if not match:
            break
        found.append(match.span())
        start = match.end()
    return found


def _bare(option: str) -> str:
    """An option's text without the signs around it; a formula keeps both of its dollars."""
    text = re.sub(r"\\(?:qquad|quad|[ ,;])|~", " ", option).strip(" \n\t,;")
    return text.strip("$ ") if text.count("$") % 2 else text


def _stem(text: str) -> str:
    """What stands before the options, without the dollar or the heading that opens them."""
    text = re.sub(r"(?:\$|\b(?:answer choices|options|choices)\s*:?)\s*$", "", text.strip(), flags=re.IGNORECASE)
    return text.strip()


def _opens_line(question: str, start: int) -> bool:
    return not question[:start].rpartition("\n")[2].strip()


def _reads_as_options(question: str, places: Sequence[tuple[int, int]]) -> bool:
    """Small letters also number the parts of a question: parts ask or command, options are short and do neither."""
    ends = [*[start for start, _ in places[1:]], len(question)]
    texts = [question[end:stop].strip() for (_, end), stop in zip(places, ends, strict=True)]
    return not any(text.endswith("?") or _COMMAND.match(text) for text in texts)


def _letter(answer: str) -> str:
    match = re.fullmatch(
        r"(?:the answer is |answer:? |option )?[\[(]?\s*([A-Ja-j])\s*[\])]?[.:]?(?:\s.*)?", answer.strip(), re.I
    )
    return match[1].upper() if match else ""


_LETTER = re.compile(r"(?:the answer is |answer:? |option )?[\[(]?\s*([A-J])\s*[\])]?[.:]?(?:\s.*)?", re.IGNORECASE)
_COMMAND = re.compile(
    r"(?:find|determine|compute|calculate|what|how|which|who|when|where|why|prove|show|give|write|state|explain|draw|"
    r"sketch|solve|evaluate|list|name|describe|express|if|use|using|hence|deduce|is|are|does|do|can)\b",
    re.IGNORECASE,
)
_NEEDS_OPTIONS = re.compile(
    r"\b(?:which (?:one )?(?:of|among) (?:the )?(?:following|these|below)|of the following"
    r"|following (?:statements?|options?|choices?|is|are)|(?:choose|select|pick|mark|tick) (?:the|one|all|an?)"
    r"|which (?:statement|option|choice|answer|one)|"
    r"best (?:describes|answer)|except|from the (?:list|options|choices)|closest to|true statement)\b|_{2,}",
    re.IGNORECASE,
)
_ALL_OR_NONE = re.compile(
    r"\b(?:all|none|both|neither|some) of (?:the|these)\b|\bcannot be determined\b|\b[A-E] and [A-E]\b", re.I
)
_CHOICE_WORDS = re.compile(
    r"\b(?:answer choices|options? (?:are|:)|multiple[- ]choice|choose the (?:correct|right|best))\b", re.I
)
_TRUE_FALSE = re.compile(
    r"\b(?:true or false|true/false|t/f\b|false or true|correct or incorrect|right or wrong|answer (?:with )?true"
    r"|(?:is|are|was) (?:this|that|the following|it|the)\b[^?.]{0,80}\b(?:true|false))\b",
    re.IGNORECASE,
)
_YES_NO_ASKED = re.compile(r"\b(?:yes or no|yes/no|answer (?:with )?['\"“]?yes\b|y/n)\b", re.IGNORECASE)
_YES_NO_FORM = re.compile(
    r"(?:is|are|was|were|am|do|does|did|can|could|will|would|should|shall|has|have|had|must|may|might|isn't|aren't|doesn't"
    r"|can't|won't)\b",
    re.IGNORECASE,
)
_PROOF = re.compile(
    r"\b(?:prove|disprove)\b(?! (?:to be|himself|herself))|\bproof (?:of|that|by)\b|\bgive an? (?:\w+ )?proof\b|"
    r"(?:^|[.,;:!?]\s+|\n|\b(?:and|then|hence|please|to)\s+)show (?:that|why|by)\b|"
    r"\b(?:verify|demonstrate|deduce|justify|establish) that\b|\bderive the (?:formula|identity|inequality)\b",
    re.IGNORECASE,
)
_PARTS = (
    re.compile(r"(?:^|[\s.?;:])\(?a\)(?:\s|\S).{3,}?(?:[\s.?;])\(?b\)\s*\S", re.IGNORECASE | re.DOTALL),
    re.compile(r"(?:^|\s)\(?i[.)]\s.{3,}?\s\(?ii[.)]\s", re.IGNORECASE | re.DOTALL),
    re.compile(r"(?:^|\n)\s*(?:\(?1[.)])\s.{3,}?\n\s*\(?2[.)]\s", re.DOTALL),
    re.compile(r"\bpart\s*(?:\(?a\)?|1|i)\b.*\bpart\s*(?:\(?b\)?|2|ii)\b", re.IGNORECASE | re.DOTALL),
)


def _is_multiple_choice(question: str, answer: str) -> bool:
    return choices_of(question) is not None or (
        bool(_CHOICE_WORDS.search(question)) and bool(re.fullmatch(r"\(?[A-E]\)?", answer))
    )


def _is_true_false(question: str, answer: str) -> bool:
    said = answer.strip(" .").casefold()
    return bool(_TRUE_FALSE.search(question)) or said in ("true", "false")


def _is_yes_no(question: str, answer: str) -> bool:
    said = answer.strip(" .").casefold()
    if said in ("yes", "no") or _YES_NO_ASKED.search(question):
        return True
    last = re.split(r"(?<=[.!?])\s+|\n|,\s*(?=(?:is|are|does|do|can|will)\b)", question.strip())[-1]
    return bool(_YES_NO_FORM.match(last)) and last.endswith("?") and not said and " or " not in last


def _is_proof(question: str, answer: str) -> bool:
    return bool(_PROOF.search(question))


def _has_parts(question: str, answer: str) -> bool:
    return any(pattern.search(question) for pattern in _PARTS) or len(_questions(question)) > 1


def _questions(question: str) -> list[str]:
    """Sentences that ask, beside those that a later one takes up."""
    sentences = re.split(r"(?<=[.!?])\s+", question)
    return [
        each
        for each in sentences
        if each.endswith("?") and re.match(r"(?:what|how|which|who|when|where|find)\b", each, re.I)
    ]


_RULES: tuple[tuple[str, Callable[[str, str], bool]], ...] = (
    (MULTIPLE_CHOICE, _is_multiple_choice),
    (TRUE_FALSE, _is_true_false),
    (PROOF, _is_proof),
    (SEVERAL_PARTS, _has_parts),
    (YES_NO, _is_yes_no),
)
