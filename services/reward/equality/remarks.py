r"""Says what stands beside a formula and changes nothing of it: `\forall x`, `for all real x`, `where c is a constant`,
`(n \ge 1)`. A condition counts only against another condition."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.reward.equality.brackets import split
from services.reward.equality.regions import RELATION

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_SETS = r"(?:\\mathbb\{[A-Z]\}|[RZNQC])(?: ?\^?(?:\{[*+]\}|[*+]|\\cdot)|_\{?[^,{}]*\}?)?"
_LETTERS = r"[a-zA-Z](?:_\{?\w\}?)?(?: ?(?:,| and |和|、) ?[a-zA-Z](?:_\{?\w\}?)?)*"
_KINDS = (
    r"(?:real|complex|positive|negative|non-?negative|nonzero|non-zero|natural|whole|rational|possible|such|the|arbitrary"
    r"|fixed|given)"
)
_NOUNS = r"(?:numbers?|integers?|reals?|values?(?: of)?|constants?|naturals?|primes?|x's)"
_BOUND = r"(?: ?(?:\\in|∈) ?" + _SETS + r"| ?(?:\\ge|\\le|\\ne|>|<) ?-?\w+)"
# A quantifier, wherever it stands.
_QUANTIFIER = (
    r"(?:\\forall|\bfor (?:all|every|any|each|arbitrary|some)\b|\bfor(?= (?:real|positive|constants?)\b)"
    r"|\bwith\b(?= (?:all|any)\b))"
)
_QUANTIFIED = re.compile(
    rf"[,;]? ?\(? ?{_QUANTIFIER}(?: {_KINDS})*(?: {_NOUNS})?(?: ?{_LETTERS}(?![a-zA-Z(])(?:{_BOUND})?)?"
    r" ?\)?(?=$|[ ,;.]|[a-zA-Z]\()[,:]?",
    re.IGNORECASE,
)
# A side remark, which reaches to the end.
_TAIL = re.compile(
    rf"[,;]? ?\(? ?(?:\bwhere\b|\bwith\b(?= {_LETTERS} ?(?:\\in|∈|is\b|are\b|an?\b|constant))"
    rf"|\b(?:for|when|if)\b(?= {_LETTERS} ?(?:\\in|∈|\\[gln]e|>|<|=[01],))|其中|这里|对(?=任意|所有|一切))(?P<said>.+)$"
)
_IS_A_NUMBER = (
    r"(?:is|are|be|为|是) ?(?:[a-z]+ )*?(?:任意|实|非零|正|整)*"
    r"(?:constants?|reals?|integers?|numbers?|常数|实数|整数|正整数)"
)
_ASIDE = re.compile(
    rf"(?:[,;] ?|(?P<open> ?\())(?P<said>{_LETTERS} ?(?:(?:\\in|∈) ?{_SETS}|{_IS_A_NUMBER}|constants?|real"
    r"|=-?\d+(?:,-?\d+)*,?\.\.\."
    r"|(?:\\[gln]e|>|<) ?-?[\w./\\{}]+(?:,-?[\w./\\{}]+)*)) ?(?(open)\))$"
)
_DECLARED = re.compile(r"(?<![a-zA-Z\\{])[a-zA-Z](?:_\w)?(?![a-zA-Z}])")


@dataclass(frozen=True)
class Remarked:
    """A formula, and the remark that stood beside it."""

    body: str
    said: str = ""

    @property
    def condition(self) -> str:
        """Returns what limits a variable, where something does."""
        return self.said if RELATION.search(self.said) or r"\ne" in self.said else ""

    def declares(self) -> list[str]:
        """The letters that the remark speaks of."""
        return list(dict.fromkeys(_DECLARED.findall(self.said)))


def without_remark(text: str) -> Remarked:
    """A formula and what is remarked on it."""
    if not _may_have_remark(text):
        return Remarked(text)
    spoken = " ".join(_TEXT.sub(r" \1 ", text).replace("$", "").split())
    body, said = spoken, ""
    if quantified := _QUANTIFIED.search(spoken):
        body, said = _QUANTIFIED.sub(_gap, spoken).strip(" ,:;"), quantified[0].strip(" ,;:()")
    elif tail := _TAIL.search(spoken):
        if len(re.findall(r"\b(?:for|where|when|if)\b", spoken)) < 2:
            body, said = spoken[: tail.start()].strip(" ,;"), tail["said"].strip(" )")
    elif (aside := _ASIDE.search(spoken)) and _is_formula(spoken[: aside.start()], aside["said"]):
        body, said = spoken[: aside.start()].strip(" ,;"), aside["said"]
    if not said or not re.search(r"[\w]", body):
        return Remarked(text)
    return Remarked(re.sub(r" ?([=+\-*/^<>,;]) ?", r"\1", body), said)


def letters_of(text: str) -> set[str]:
    """The letters of a formula, without its commands."""
    return set(re.findall(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", text)))


def with_letter(text: str, old: str, new: str) -> str:
    """A formula with one letter for another."""
    return re.sub(r"\\[a-zA-Z]+|[a-zA-Z]", lambda match: new if match[0] == old else match[0], text)


def _gap(match: re.Match[str]) -> str:
    return "," if match[0].endswith(",") and match.start() else ""


def _may_have_remark(text: str) -> bool:
    return (
        r"\forall" in text
        or r"\in" in text
        or re.search(
            r"\b(?:for|where|with|is|are|constant|real)\b|[为是对其这]|[,(].*(?:<|>|\\[lgn]e|\.\.\.)",
            text,
            re.IGNORECASE,
        )
        is not None
    )


def _is_formula(body: str, said: str) -> bool:
    """Tests whether a condition is a remark on what stands before it, and not one of several conditions."""
    letters = _DECLARED.findall(said)
    if RELATION.search(body) or r"\ne" in body or r"\in" in body or not letters:
        return False
    if "is" in said or "are" in said or re.search(r"[为是]|\\in|∈|constant|real", said):
        return True
    return len(split(body, ",;")) == 1 and letters[0][0] in letters_of(body)
