"""Question types that make poor prompts for reinforcement learning (k1.5 §2.1): easily guessed, or not verifiable.

Multiple choice, true or false, yes or no and a choice of two are right too often by chance; a proof cannot be checked by
its answer; a question in several parts has several answers. A multiple-choice question whose stem stands alone becomes
an open one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from perilune.curation.choices import (
    ALL_OR_NONE,
    ASKING,
    COMMAND,
    LETTERS,
    MARK,
    NEEDS_OPTIONS,
    choices_of,
    is_multiple_choice,
    letter_of,
    marks_in,
)
from perilune.curation.text import cleaned, without_label, words

MULTIPLE_CHOICE, TRUE_FALSE, YES_NO, EITHER_OR, PROOF, SEVERAL_PARTS = TYPES = (
    "multiple choice", "true or false", "yes or no", "either or", "proof", "several parts"
)  # fmt: skip
OPEN = "open"

_CIRCLED = {**dict(zip("ⒶⒷⒸⒹⒺⒻ", "ABCDEF", strict=True)), **dict(zip("🄰🄱🄲🄳🄴🄵", "ABCDEF", strict=True))} | {
    **dict(zip("①②③④⑤⑥⑦⑧", "abcdefgh", strict=True)), **dict(zip("⑴⑵⑶⑷⑸⑹", "abcdef", strict=True))
}  # fmt: skip


def type_of(question: str, answer: str = "") -> str:
    """The type of a question: one of the names above, `open` for all others.

    >>> type_of("Is 91 a prime number?", "no"), type_of("What is 2 + 2?", "4"), type_of("Prove that 2 is even.")
    ('yes or no', 'open', 'proof')
    """
    question, answer = _read(question), _read(answer)
    return next((name for name, holds in _RULES if holds(question, answer)), OPEN)


def opened(question: str, answer: str) -> tuple[str, str] | None:
    """A multiple-choice question as an open one, with its answer; None if it needs its options to be understood.

    >>> opened("What is 3 * 4? (A) 7 (B) 12 (C) 34", "B")
    ('What is 3 * 4?', '12')
    """
    choices = choices_of(without_label(_read(question)))
    if choices is None or NEEDS_OPTIONS.search(choices.stem) or len(choices.stem.split()) < 3:
        return None
    if type_of(choices.stem) != OPEN:
        return None
    letter = letter_of(answer)
    text = choices.options.get(letter, "") if letter else cleaned(answer)
    if not letter and text not in choices.options.values():
        return None
    return (choices.stem, text) if text and not ALL_OR_NONE.search(text) else None


def _read(question: str) -> str:
    """A question as the rules read it: circled letters in brackets, one sign for each."""
    text = cleaned(question)
    for sign, letter in _CIRCLED.items():
        if sign in text:
            text = text.replace(sign, f" ({letter}) ")
    return text.replace("’", "'").replace("（", "(").replace("）", ") ").replace("：", ": ")


# --- Words of each type -----------------------------------------------------------------------------------------------

_ASKS = "find|determine|compute|calculate|evaluate|what|how|which|who|when|where|why|solve|simplify"
_STATEMENT = r"(?:statement|claim|assertion|sentence|proposition|equation|following|conclusion|inequality|identity)s?"
_TRUE_FALSE = re.compile(
    r"\bfact or fiction\b|\btrue\s*(?:or|/|\\|\||,)\s*false\b|\bfalse\s*(?:or|/)\s*true\b|\bt\s*/\s*f\b|\(t or f\)"
    r"|\b(?:is|are|was) (?:correct or incorrect|right or wrong|true or not|false or not)\b"
    r"|\b(?:correct or incorrect|right or wrong|valid or invalid)\s*[:?]"
    r"|\banswer (?:with )?['\"“]?true\b|\btrue if\b.{0,60}\bfalse (?:if|otherwise)\b"
    rf"|\b(?:is|are|was) (?:this|that|the|it|the following)\b[^?.:]{{0,80}}?\b(?:{_STATEMENT}\b[^?.:]{{0,60}}\b)?(?:true|false)\b(?! that| for)"
    rf"|\b(?:decide|determine|state|say|tell|judge|assess|evaluate|indicate|check|verify|consider)\b[^.?]{{0,40}}\b{_STATEMENT}\b"
    r"[^.?]{0,80}\b(?:true|false|correct|incorrect|holds?|valid|right|wrong)\b"
    rf"|\b(?:is|are) (?:this|that|the following|the above|the) {_STATEMENT}\b[^?.]{{0,60}}\b(?:true|false|correct|incorrect|valid|right|wrong)\b"
    rf"|\b(?:truth value|true-false|true/false|verdict) (?:of|question|on)\b|\bassess the (?:truth|validity)\b",
    re.IGNORECASE,
)
_YES_NO_WORDS = re.compile(
    r"\byes\s*(?:or|/|,)\s*no\b|\bno or yes\b|\by\s*/\s*n\b|\banswer (?:with )?['\"“]?(?:yes|no)\b", re.IGNORECASE
)
_YES_NO_ASKED = re.compile(
    r"\b(?:determine|decide|check|find out|tell me|say|state|verify|test|investigate|establish|judge|assess|figure out|"
    r"work out|see|consider|tell|let me know|indicate) (?:for me )?(?:whether|if)\b(?! and only)(?!.{0,200}\b(?:find|compute|"
    r"how many|what is|calculate)\b)"
    r"|,\s*(?:isn't|aren't|doesn't|don't|is|does|do|can|can't|won't|wasn't|hasn't) (?:it|they|he|she|that)\s*\?|,\s*(?:right|correct|yes|no)\s*\?$",
    re.IGNORECASE | re.DOTALL,
)
_YES_NO_FORM = re.compile(
    r"(?:is|are|was|were|am|do|does|did|can|could|will|would|should|shall|has|have|had|must|may|might|isn't|aren't|doesn't"
    r"|don't|didn't|wasn't|can't|won't|couldn't)\b",
    re.IGNORECASE,
)
_YES_NO_ANSWER = re.compile(
    r"(?:yes|no|yeah|yep|yup|nope|nah|y|n)\b\s*(?:$|[.,;:!—–-]|it\b|they\b|there\b|because\b|since\b|as\b|he\b|she\b)",
    re.IGNORECASE,
)
_POLAR_ANSWER = re.compile(
    r"(?:(?:it|they|he|she|there|this|that) (?:is|are|does|do|can|will|has|have|was|were)(?:n't| not)?(?: .{0,40})?|(?:is|are|does|do|can|will|was|has) not.{0,40}"
    r"|(?:it|they|he|she) cannot.{0,20}|not .{0,40}|never|always|sometimes|correct|incorrect|right|wrong|possible|impossible"
    r"|affirmative|negative|indeed|of course|certainly|true|false|always true|never true)\.?",
    re.IGNORECASE,
)
_NOT_A_TASK = r"(?:your|you|all|each|every|me|us|how|work|steps?|working|workings|the (?:steps?|work|working|result|answer|solution|calculation|process|reasoning|first|next))\b"
_PROOF = re.compile(
    r"\b(?:prove|disprove)\b(?! (?:to be|himself|herself|useful|helpful|them))|\b(?:proof|proofs) (?:of|that|by|for)\b"
    r"|\bgive (?:an? |the )?(?:\w+ ){0,2}(?:proof|argument|demonstration|derivation)\b|\bwrite (?:an? |the )?(?:\w+ ){0,2}proof\b"
    rf"|(?:^|[.,;:!?]\s+|\n|\b(?:and|then|hence|please|to|must|should|induction|formally|rigorously|clearly)\s+)show\s+(?!{_NOT_A_TASK})"
    r"(?:that\b|why\b|by\b|[^.?!]{0,200}\b(?:is|are|has|have|equals?|holds?|divides|converges?|contains?|cannot|does|exists?|must|lies?|lie)\b)"
    r"|\bshow (?:rigorously|formally|using|by induction)\b[^.?]{0,60}\bthat\b"
    r"|\b(?:verify|demonstrate|deduce|justify|establish|confirm|argue|conclude|derive|explain) (?:that|why|the (?:identity|inequality"
    r"|claim|statement|theorem|formula|result))\b|\bexplain,? (?:\w+ )?why\b|\bjustify (?:your|the|each|why)\b(?! (?:answer|steps))"
    r"|\bderive (?:the|an?) (?:\w+ )?(?:formula|identity|inequality|expression for)\b|\bdemonstrate\b[^.?]{0,80}\b(?:is|are|holds|has)\b"
    r"|\bto be (?:shown|proved|proven|demonstrated|established)\b|\bq\.?e\.?d\b",
    re.IGNORECASE,
)
_PARTS = (
    re.compile(
        r"(?:^|[\s.?;:,])[\(\[]?a[\)\]](?:\s|\S).{3,}?(?:[\s.?;,])[\(\[]?b[\)\]]\s*\S", re.IGNORECASE | re.DOTALL
    ),
    re.compile(r"(?:^|\n)\s*a[.:]\s.{3,}?\n\s*b[.:]\s", re.IGNORECASE | re.DOTALL),
    re.compile(
        rf"(?:^|\s)a[.:]\s+(?:{ASKING})\b.{{3,}}?\sb[.:]\s+(?:{ASKING}|hence|is|are|prove|show)\b",
        re.IGNORECASE | re.DOTALL,
    ),
    re.compile(r"(?:^|[\s.?;:])[\(\[]?i[.)\]]\s.{3,}?\s[\(\[]?ii[.)\]]\s*\S", re.IGNORECASE | re.DOTALL),
    re.compile(
        rf"(?:^|\n)\s*[\(\[]?1[.)\]]\s[^\n]*?(?:\?|\b(?:{_ASKS})\b)[^\n]*(?:\n[^\n]*)*?\n\s*[\(\[]?2[.)\]]\s*(?:(?:{_ASKS})\b|[^\n]*\?)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?:^|[\s.?;:])[\(\[]?1[.)\]:]\s*(?:{_ASKS}|is|are|does|prove|show|express)\b.{{3,}}?[\s.?;,][\(\[]?2[.)\]:]\s*"
        rf"(?:{ASKING}|is|are|does|prove|show|express|hence)\b",
        re.IGNORECASE | re.DOTALL,
    ),
    re.compile(
        r"\b(?:part|question|subquestion|sub-question|task|q)\s*(?:\(a\)|(?:a|1|i|one)\s*[:.)–—-]).*\b(?:part|question|subquestion|"
        r"sub-question|task|q)\s*(?:\(b\)|(?:b|2|ii|two)\s*[:.)–—-])",
        re.IGNORECASE | re.DOTALL,
    ),
    re.compile(
        r"(?:^|[.?!;\n]\s*)(?:(?:and|but)\s+)?(?:also|in addition|additionally|furthermore|moreover|secondly|second|finally|lastly|"
        r"then|next|afterwards|after that|hence)\b,?\s+(?:also\s+)?(?:find|determine|compute|calculate|evaluate|what|how (?:many|much|long|far|old)"
        r"|which|who|when|where|solve|simplify|list|state|give)\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\bfirst(?:ly)?,?\s+(?:{ASKING})\b.{{3,}}?\b(?:second(?:ly)?|then|next|finally)\b,?\s+(?:{ASKING})\b",
        re.IGNORECASE | re.DOTALL,
    ),
    re.compile(
        r"\b(?:find|determine|compute|calculate|evaluate|give|state)\b[^.?!;]{4,120}?(?:,|;|\band)\s+(?:and\s+)?(?:then\s+|also\s+|hence\s+|finally\s+)?"
        r"(?:find|determine|compute|calculate|evaluate|what is|how many|state)\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:^|\n)\s*[-•*·]\s*(?:find|determine|compute|calculate|evaluate|what|how|which|solve)\b.+\n\s*[-•*·]\s*(?:find|determine|compute|calculate|evaluate|what|how|which|solve)\b",
        re.IGNORECASE,
    ),
)
# What stands before labelled conditions, which are no parts: "Given that (i) x > 0 and (ii) x^2 = 9".
_GIVEN = re.compile(
    r"\b(?:given(?: that)?|suppose(?: that)?|assum(?:e|ing)(?: that)?|such that|satisf\w+|conditions?|propert(?:y|ies)|rules?|"
    r"knowing(?: that)?|facts?|axioms?|where|if|when)\W*$",
    re.IGNORECASE,
)
_ALSO_ASKED = re.compile(
    r"\b(?:find|determine|compute|calculate|evaluate|give|state|what is|what are)\b[^.?!;]{4,160}?(?:,? and also|,? as well as)\s",
    re.IGNORECASE,
)
_ASKED_TOGETHER = re.compile(
    r"\b(?:find|determine|compute|calculate|evaluate|give|state|what (?:is|are))\s+(the\s[^.?!:,]*(?:,\s*(?:and\s+)?the\s[^.?!:,]*|"
    r"\sand\sthe\s[^.?!:,]*)+)|\bhow (?:old|many|much|tall|heavy|long|far|fast) (?:are|is|do|does|did|has|have) (\w+ and \w+)\b",
    re.IGNORECASE,
)
_BETWEEN_ASKED = re.compile(r",\s*(?:and\s+)?|\sand\s", re.IGNORECASE)
_BETWEEN_VALUES = re.compile(r"\s*(?:[;\n]|,(?!\d{3}(?!\d))|\band\b)\s*")
_WH_QUESTION = re.compile(
    r"(?:(?:and|but|so|also|now|then|finally|in that case|if so),?\s+)?(?:what|how|which|who|whom|whose|when|where|in (?:which|what)|at (?:which|what))\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\b(?:did you know|guess what|so what|what if|how about|why not|how come|how do you do|who knows)\b", re.I
)


def _is_true_false(question: str, answer: str) -> bool:
    said = answer.strip(" .!'\"").casefold()
    if re.search(r"\d", said):
        return False
    if _TRUE_FALSE.search(question) or re.match(r"(?:true|false)\b(?:$|[.,;:—-])", said):
        return True
    return said in ("t", "f") and not (COMMAND.match(without_label(question)) or question.endswith("?"))


def _is_yes_no(question: str, answer: str) -> bool:
    said = answer.strip(" .!'\"").casefold()
    if _YES_NO_ANSWER.match(said) and said not in ("n", "y"):
        return True
    if _YES_NO_WORDS.search(question):
        return not re.search(r"\d", said)
    if (asked := _YES_NO_ASKED.search(question)) and (
        not said or _POLAR_ANSWER.fullmatch(said) or _repeats(said, question[asked.start() :])
    ):
        return True
    question = without_label(question)
    last = re.split(
        r"(?<=[.!?])\s+|\n|[,:]\s*(?=(?:is|are|does|do|did|can|will|could|would|has|have|was|were)\b)",
        question.strip(),
        flags=re.I,
    )[-1]
    last = re.sub(r"^(?:then|so|now|and|but|if so),?\s+", "", last, flags=re.IGNORECASE)
    if not (_YES_NO_FORM.match(last) and last.endswith("?")):
        return False
    return (not said and not re.search(r"\bor\b", last)) or bool(_POLAR_ANSWER.fullmatch(said)) or _repeats(said, last)


def _repeats(answer: str, question: str) -> bool:
    """Tests whether an answer says no more than the question: "prime", of "Is 7 prime?"."""
    if re.search(r"\d|\bor\b", answer + question[question.find(" or ") :] if " or " in question else answer):
        return False
    said = set(words(answer)) - {"it", "is", "not", "are", "the", "a", "does", "they", "do"}
    return bool(said) and len(said) <= 4 and said <= set(words(question))


def _is_either_or(question: str, answer: str) -> bool:
    """Two things are named with "or" where something is asked, and one of them is the answer."""
    said = " ".join(words(answer))
    if not said or len(said) > 40:
        return False
    sentences = re.split(r"(?<=[.!?;:])\s+|\n", re.sub(r"\([^()]*\)", " ", without_label(question)).strip())
    asking = [each for each in sentences if each.rstrip("\"' ").endswith("?")] or sentences[-1:]
    for sentence in asking:
        for match in re.finditer(r"\bor\b", sentence, re.IGNORECASE):
            before = " ".join(words(sentence[: match.start()].strip(" ,")))
            after = " ".join(words(sentence[match.end() :]))
            if f" {before}".endswith(f" {said}") or f"{after} ".startswith(
                (f"{said} ", f"a {said} ", f"the {said} ", f"an {said} ")
            ):
                return True
    return False


def _is_proof(question: str, answer: str) -> bool:
    return bool(_PROOF.search(re.sub(r"[\"'“‘]\w+[\"'”’]", " ", without_label(question))))


def _has_parts(question: str, answer: str) -> bool:
    parts = (pattern.search(question) for pattern in _PARTS)
    if any(match and not _GIVEN.search(question[: match.start() + 1].rstrip("([")) for match in parts):
        return True
    return len(_questions(question)) > 1 or _asks_together(question, _num_values(answer))


def _asks_together(question: str, num_values: int) -> bool:
    """Tests whether one sentence asks for as many things as an answer has values: "the mean and the mode"."""
    if num_values < 2:
        return False
    marks = max((marks_in(question, names, MARK) for names in ("123456789", *LETTERS)), key=len)
    is_given = bool(marks) and bool(_GIVEN.search(question[: marks[0][0]]))
    if len(marks) == num_values and not is_given and not _reads_as_data(question, marks):
        return True
    match = _ASKED_TOGETHER.search(question)
    asked = _BETWEEN_ASKED.split(match[1] or match[2]) if match else []
    return len(asked) == num_values or bool(_ALSO_ASKED.search(question))


def _reads_as_data(question: str, marks: Sequence[tuple[int, int]]) -> bool:
    """Tests whether something is asked for after the last of some marks: then these number what is given."""
    return bool(re.search(rf"[.;?!]\s.*\b(?:{_ASKS})\b", question[marks[-1][1] :], re.IGNORECASE | re.DOTALL))


def _num_values(answer: str) -> int:
    """How many values an answer gives, between commas, semicolons or "and"; those of a tuple or a set are one."""
    if re.fullmatch(r"\W*[(\[{].*[)\]}]\W*", answer.strip(), re.DOTALL):
        return 1
    return len([value for value in _BETWEEN_VALUES.split(answer) if value])


def _questions(question: str) -> list[str]:
    """Sentences that ask, beside asides."""
    sentences = re.split(r"(?<=[.!?])\s+", without_label(question))
    return [each for each in sentences if each.endswith("?") and _WH_QUESTION.match(each) and not _ASIDE.search(each)]


_RULES: tuple[tuple[str, Callable[[str, str], bool]], ...] = (
    (MULTIPLE_CHOICE, is_multiple_choice),
    (TRUE_FALSE, _is_true_false),
    (PROOF, _is_proof),
    (SEVERAL_PARTS, _has_parts),
    (YES_NO, _is_yes_no),
    (EITHER_OR, _is_either_or),
)
