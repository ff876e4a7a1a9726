"""Problems with more than one right output: found by the statement's words, and by right submissions that disagree."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What a statement says, and why outputs then cannot be compared.
_MANY = {
    "asks for any of several answers": (
        r"\b(?:print|output|return|find|give|write|report|choose|pick|show)s?\b[^.!?\n]{0,60}\bany\s+(?:one\s+)?"
        r"(?:of\s+(?:them|these|those|the)|valid|such|possible|correct|optimal|acceptable|suitable|solution|answer|order)",
        r"\bany\s+(?:valid\s+|correct\s+|possible\s+|optimal\s+|such\s+)?(?:one\s+|answers?\s+|solutions?\s+|of\s+them\s+|"
        r"order\s+|output\s+)?(?:is|are|will\s+be|would\s+be|can\s+be|may\s+be)\s+(?:also\s+)?(?:accepted|acceptable|allowed|"
        r"fine|considered\s+correct|printed|output|returned)",
        r"\byou\s+(?:may|can)\s+(?:print|output|return|give|choose)\b[^.!?\n]{0,40}\bany\b",
        r"\bin\s+any\s+order\b",
        r"\b(?:order|sequence)\s+(?:of\b[^.!?\n]{0,40}\s+)?does\s+not\s+matter\b",
        r"输出任意|任意一[个种组]|任意顺序|任何一[个种组]",
    ),
    "says that several answers are right": (
        r"\bif\s+(?:there\s+(?:are|is|exist)|(?:multiple|several|many))\b[^.!?\n]{0,60}"
        r"\b(?:multiple|several|many|more\s+than\s+one)\b[^.!?\n]{0,60}\bany\b",
        r"\b(?:multiple|several|many)\s+(?:correct|valid|possible|optimal)?\s*(?:answers|solutions|outputs)\s+"
        r"(?:exist|are\s+(?:possible|accepted|allowed))\b[^!?\n]{0,60}\bany\b",
        r"\bthere\s+(?:may|might|can)\s+be\s+(?:multiple|several|many|more\s+than\s+one)\b[^!?\n]{0,80}\bany\b",
        r"如果有多[个种组].{0,20}任[意何]",
    ),
    "speaks of a checker or special judge": (
        r"\bspecial[\s-]+judge\b",
        r"\bspecial\s+checker\b",
        r"\bchecker\s+(?:will|program)\b",
        r"特殊评测|\bSPJ\b",
    ),
    "is interactive": (
        r"\binteractive\s+(?:problem|task)\b",
        r"\bflush\s+(?:the\s+)?(?:output|stdout|standard\s+output)\b",
        r"\binteract\s+with\s+(?:the\s+)?(?:judge|grader|interactor|jury)\b",
        r"交互题",
    ),
}
_TOLERANCE = re.compile(
    r"\b(?:absolute|relative)\b(?:[^.!?\n]|\.(?=\d)){0,40}\berror\b|\berror\s+(?:of\s+)?(?:at\s+most|less\s+than)|\bup\s+to\s+\d+\s+decimal",
    re.IGNORECASE,
)
_SINGLE = re.compile(
    r"\b(?:lexicographically|alphabetically)\s+(?:smallest|largest|first|last|minimal|least)\b", re.IGNORECASE
)
_REASONS = {reason: [re.compile(rule, re.IGNORECASE) for rule in rules] for reason, rules in _MANY.items()}


def reason_in(statement: str) -> str:
    """Why the statement needs a special judge, with the words that say so; empty if it needs none.

    A statement that asks for the lexicographically smallest of several answers has one answer.

    >>> reason_in("If there are several paths, print any of them.")
    "asks for any of several answers ('print any of them')"
    >>> reason_in("Print the sum of any two numbers.")
    ''
    """
    if _SINGLE.search(statement):
        return ""
    for reason, rules in _REASONS.items():
        for rule in rules:
            if found := rule.search(statement):
                return f"{reason} ({' '.join(found[0].split())!r})"
    return ""


def allows_tolerance(statement: str) -> bool:
    """True if the statement lets numbers differ a little: they are compared as floats, with no special judge.

    >>> allows_tolerance("Your answer is right if its absolute or relative error is at most 1e-6.")
    True
    """
    return bool(_TOLERANCE.search(statement))


def disagreement(agreed: Sequence[bool], share: float) -> str:
    """Why right submissions need a special judge; empty if they do not.

    Args:
        agreed: for each input that nearly all submissions ended well on, whether enough of them gave one output.
        share: of disagreements, from which on the problem and not a stray input is the reason.

    >>> disagreement([True] * 9 + [False], 0.2), disagreement([True, False], 0.2)
    ('', 'right submissions disagree on 1 of 2 inputs that they all answer')
    """
    num = agreed.count(False)
    if not agreed or num < share * len(agreed):
        return ""
    return f"right submissions disagree on {num} of {len(agreed)} inputs that they all answer"
