"""Question types that make poor prompts for reinforcement learning (k1.5 §2.1): easily guessed, or not verifiable.

Multiple choice, true or false, yes or no and a choice of two are right too often by chance; a proof cannot be checked by
its answer; a question in several parts has several answers. A multiple-choice question whose stem stands alone becomes
an open one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from perilune.curation.text import cleaned, without_label, words

MULTIPLE_CHOICE, TRUE_FALSE, YES_NO, EITHER_OR, PROOF, SEVERAL_PARTS = TYPES = (
    "multiple choice", "true or false", "yes or no", "either or", "proof", "several parts"
)  # fmt: skip
OPEN = "open"

# How an option or a part is numbered: (A), [A], A), A., A:, \textbf{(A)}, <A>, A -, and "Option A:" before all of them.
_MARK = (
    r"(?:(?i:option|choice|answer|part)\s+)?"
    r"(?:\(\s*{letter}\s*\)|\[\s*{letter}\s*\]|<\s*{letter}\s*>|\{{\s*{letter}\s*\}}|\*\*\(?{letter}\)?[.:)]?\*\*"
    r"|\b{letter}\s*[.):]|\b{letter}、|\b{letter}\s+[-–—]\s|[\"']{letter}[\"']\s*:"
    r"|\\textbf\{{\s*\(?{letter}\)?\s*\.?\}}|\\text\{{\s*\(?{letter}\)?\s*\}}|\\mathrm\{{\s*\(?{letter}\)?\s*\}})"
)
_MARKED_WORDS = r"(?i:option|choice)\s+{letter}\b\s*[-:.)]?"
_CIRCLED = {**dict(zip("ⒶⒷⒸⒹⒺⒻ", "ABCDEF", strict=True)), **dict(zip("🄰🄱🄲🄳🄴🄵", "ABCDEF", strict=True))} | {
    **dict(zip("①②③④⑤⑥⑦⑧", "abcdefgh", strict=True)), **dict(zip("⑴⑵⑶⑷⑸⑹", "abcdef", strict=True))
}  # fmt: skip
_LETTERS = ("ABCDEFGHIJ", "abcdefghij")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi")


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
    question, answer = _read(question), _read(answer)
    return next((name for name, holds in _RULES if holds(question, answer)), OPEN)


def opened(question: str, answer: str) -> tuple[str, str] | None:
    """A multiple-choice question as an open one, with its answer; None if it needs its options to be understood.

    >>> opened("What is 3 * 4? (A) 7 (B) 12 (C) 34", "B")
    ('What is 3 * 4?', '12')
    """
    choices = choices_of(without_label(_read(question)))
    if choices is None or _NEEDS_OPTIONS.search(choices.stem) or len(choices.stem.split()) < 3:
        return None
    if type_of(choices.stem) != OPEN:
        return None
    letter = _letter(answer)
    text = choices.options.get(letter, "") if letter else cleaned(answer)
    if not letter and text not in choices.options.values():
        return None
    return (choices.stem, text) if text and not _ALL_OR_NONE.search(text) else None


def _read(question: str) -> str:
    """A question as the rules read it: circled letters in brackets, one sign for each."""
    text = cleaned(question)
    for sign, letter in _CIRCLED.items():
        if sign in text:
            text = text.replace(sign, f" ({letter}) ")
    return text.replace("’", "'").replace("（", "(").replace("）", ") ").replace("：", ": ")


# --- Options ----------------------------------------------------------------------------------------------------------


def choices_of(question: str) -> Choices | None:
    """The options of a question: three or more in the order of the alphabet, or two that begin lines; None without."""
    for letters in _LETTERS:
        for pattern in (_MARK, _MARKED_WORDS):
            places = _marks(question, letters, pattern)
            if len(places) >= 3 or (len(places) == 2 and _are_two_options(question, places)):
                found = _options(question, letters, places)
                if found:
                    return found
    return _numbered_choices(question)


def _options(question: str, letters: str, places: Sequence[tuple[int, int]]) -> Choices | None:
    if letters[0] == "a" and not _reads_as_options(question, places):
        return None
    ends = [*[start for start, _ in places[1:]], len(question)]
    texts = [_bare(question[end:stop]) for (_, end), stop in zip(places, ends, strict=True)]
    return (
        Choices(_stem(question[: places[0][0]]), dict(zip("ABCDEFGHIJ", texts, strict=False))) if all(texts) else None
    )


def _numbered_choices(question: str) -> Choices | None:
    """Options that are numbered, or begin with signs, where the question says that one is to be chosen."""
    if not (_NEEDS_OPTIONS.search(question) or _CHOICE_WORDS.search(question)):
        return None
    for names in ("123456789", _ROMAN):
        places = _marks(question, names, _MARK)
        if len(places) >= 2 and _reads_as_options(question, places):
            return _options(question, "A", places)
    return None


def _are_two_options(question: str, places: Sequence[tuple[int, int]]) -> bool:
    return all(_opens_line(question, start) for start, _ in places) or bool(_NEEDS_OPTIONS.search(question))


def _marks(question: str, letters: Sequence[str], mark: str) -> list[tuple[int, int]]:
    """Returns where (A), (B), … are, each behind the one before."""
    found: list[tuple[int, int]] = []
    start = 0
    for letter in letters:
        pattern = _pattern(letter, mark)
        match = pattern.search(question, start)
        if not match:
            break
        found.append(match.span())
        start = match.end()
    return found


_patterns: dict[tuple[str, str], re.Pattern[str]] = {}


def _pattern(letter: str, mark: str) -> re.Pattern[str]:
    key = letter, mark
    if key not in _patterns:
        flags = re.MULTILINE | (re.IGNORECASE if letter in _ROMAN[1:] else 0)
        written = rf"(?:^|(?<=[\s$,;?.:!/|\]\)}}\"'•*-])){mark.format(letter=letter)}(?=\s|\S)"
        _patterns[key] = re.compile(written, flags)
    return _patterns[key]


def _bare(option: str) -> str:
    """An option's text without the signs around it; a formula keeps both of its dollars."""
    text = re.sub(r"\\(?:qquad|quad|[ ,;])|~", " ", option).strip(" \n\t,;|/•*")
    return text.strip("$ ") if text.count("$") % 2 else text


def _stem(text: str) -> str:
    """Returns what stands before the options, without the dollar or the heading that opens them."""
    text = re.sub(r"(?:\$|\b(?:answer choices|options|choices)\s*:?)\s*$", "", text.strip(), flags=re.IGNORECASE)
    return text.strip(" \n-•*|")


def _opens_line(question: str, start: int) -> bool:
    return not question[:start].rpartition("\n")[2].strip(" -•*")


def _reads_as_options(question: str, places: Sequence[tuple[int, int]]) -> bool:
    """Small letters also number the parts of a question: parts ask or command, options are short and do neither."""
    ends = [*[start for start, _ in places[1:]], len(question)]
    texts = [question[end:stop].strip() for (_, end), stop in zip(places, ends, strict=True)]
    return not any(text.endswith("?") or _COMMAND.match(text) for text in texts)


def _letter(answer: str) -> str:
    match = re.fullmatch(
        r"(?:the (?:correct )?answer is |answer:? |option |choice )?[\[(<{*]*\s*([A-Ja-j])(?:\s*[\])>}*]+[.:]?(?:\s.*)?|[.:](?:\s.*)?"
        r"|\s+[-–—=]\s.*)?",
        answer.strip(),
        re.I | re.DOTALL,
    )
    return match[1].upper() if match else ""


def _is_chosen(answer: str, choices: Choices) -> bool:
    """Tests whether an answer names an option by its letter, its number or its text."""
    said = " ".join(words(answer))
    if not said or _letter(answer):
        return True
    return any(said and said in " ".join(words(text)) for text in choices.options.values())


# --- Words of each type -----------------------------------------------------------------------------------------------

_ASKING = (
    "find|determine|compute|calculate|evaluate|what|how|which|who|when|where|why|solve|simplify|list|name|state|give"
)
_ASKS = "find|determine|compute|calculate|evaluate|what|how|which|who|when|where|why|solve|simplify"
_COMMAND = re.compile(
    rf"(?:{_ASKING}|prove|show|write|explain|draw|sketch|describe|express|if|use|using|hence|deduce|is|are|does|do|can|"
    r"construct|plot|graph|verify|sum up|convert|factor|expand|estimate|identify)\b",
    re.IGNORECASE,
)
_NEEDS_OPTIONS = re.compile(
    r"\b(?:which|what|whose|who) (?:one )?(?:of|among|amongst|from|out of) (?:the )?"
    r"(?:(?:following|these|those|below|above|listed|given|options|choices|alternatives|answers|statements)\b"
    r"|\w+ (?:below|listed|given)\b)"
    r"|\b(?:of|from|among|amongst) (?:the )?(?:following|options|choices|alternatives)\b"
    r"|\bwhich (?:of )?(?:the )?following\b|\b(?:of|among|amongst|from) the (?:following|options|choices)\b[^.?]{0,60}\bwhich\b"
    r"|\bfollowing (?:\w+ )?(?:statements?|options?|choices?|answers?|alternatives?|is|are)\b"
    r"|\b(?:choose|select|pick|mark|tick|circle|indicate|identify) (?:the )?(?:one\b|correct|right|best|an? (?:option|"
    r"answer|choice)|option|answer|letter|from (?:the )?(?:following|options|choices|list))"
    r"|\bwhich (?:statement|option|choice|answer|alternative)s?\b"
    r"|\bbest (?:describes|answer|completes)\b|\bexcept\s*[:?]|\bfrom the (?:list|options|choices)\b"
    r"|\bclosest to\s*[:?]|\btrue statement\b|_{3,}",
    re.IGNORECASE,
)
_ALL_OR_NONE = re.compile(
    r"\b(?:all|none|both|neither|some) of (?:the|these)\b|\bcannot be determined\b|\b[A-E] and [A-E]\b", re.I
)
_CHOICE_WORDS = re.compile(
    r"\b(?:answer choices|all that apply|odd one out|(?:options|choices|alternatives)\s*(?:are)?\s*[:=\[(]|multiple[- ]choice"
    r"|(?:choose|select|pick|mark|tick|circle) (?:one|the (?:correct|right|best|letter)|from\b|between\b|an? (?:option|answer))"
    r"|one of (?:the following|these)\b)",
    re.IGNORECASE,
)
_LISTED = re.compile(
    r"\b(?:which|what) (?:one )?(?:of|among|amongst) (?:the |these |those )?(?:following|these|numbers|words|values|items|"
    r"expressions|options|choices|statements|figures|shapes|animals|elements|sentences|cities|countries)\b[^?:]*"
    r"[:?,(\[-]\s*\S+\s*(?:[,;/|]\s*\S[^,;/|?]*){1,}"
    r"|\b(?:choose|select|pick) (?:one )?(?:from|between|among)\b"
    r"|\b(?:which|what) (?:ones? )?(?:of|among) (?:\S+,\s+)+(?:(?:and|or)\s+)?\S+|\ball that apply\b",
    re.IGNORECASE,
)
_ENUMERATED = re.compile(
    r"(?:[:(—–]|\b(?:of|among|from|between|is|are)\b)\s*([^?.:()]{0,200}?[,/][^?.:()]{1,200})", re.IGNORECASE
)
_BETWEEN_ITEMS = re.compile(r"\s*(?:,|/|\bor\b|\band\b)\s*", re.IGNORECASE)
_CHOOSES = re.compile(r"\b(?:which|who|whose|pick|choose|select|name|odd one out)\b|\s/\s|,?\s+or\s", re.IGNORECASE)
_WHICH_OF_FOLLOWING = re.compile(
    r"\b(?:which|what|who) (?:one )?(?:of|among|amongst) (?:the (?:following|options|choices|alternatives|statements)|these\b|"
    r"those\b)|\b(?:among|amongst|of|from) the (?:following|options|choices)\b[^.?]{0,60}\b(?:which|what)\b|\bwhich (?:of )?(?:the )?following\b|\bwhich (?:option|choice|alternative|statement|answer)s? "
    r"(?:is|are|below|best|correctly|states|shows|describes|gives|must)\b",
    re.IGNORECASE,
)
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
        rf"(?:^|\s)a[.:]\s+(?:{_ASKING})\b.{{3,}}?\sb[.:]\s+(?:{_ASKING}|hence|is|are|prove|show)\b",
        re.IGNORECASE | re.DOTALL,
    ),
    re.compile(r"(?:^|[\s.?;:])[\(\[]?i[.)\]]\s.{3,}?\s[\(\[]?ii[.)\]]\s*\S", re.IGNORECASE | re.DOTALL),
    re.compile(
        rf"(?:^|\n)\s*[\(\[]?1[.)\]]\s[^\n]*?(?:\?|\b(?:{_ASKS})\b)[^\n]*(?:\n[^\n]*)*?\n\s*[\(\[]?2[.)\]]\s*(?:(?:{_ASKS})\b|[^\n]*\?)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?:^|[\s.?;:])[\(\[]?1[.)\]:]\s*(?:{_ASKS}|is|are|does|prove|show|express)\b.{{3,}}?[\s.?;,][\(\[]?2[.)\]:]\s*"
        rf"(?:{_ASKING}|is|are|does|prove|show|express|hence)\b",
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
        rf"\bfirst(?:ly)?,?\s+(?:{_ASKING})\b.{{3,}}?\b(?:second(?:ly)?|then|next|finally)\b,?\s+(?:{_ASKING})\b",
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
_BULLET = re.compile(r"^\s*[-–•*·]\s+(\S.{0,80}?)\s*$", re.MULTILINE)
_WH_QUESTION = re.compile(
    r"(?:(?:and|but|so|also|now|then|finally|in that case|if so),?\s+)?(?:what|how|which|who|whom|whose|when|where|in (?:which|what)|at (?:which|what))\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\b(?:did you know|guess what|so what|what if|how about|why not|how come|how do you do|who knows)\b", re.I
)


def _is_multiple_choice(question: str, answer: str) -> bool:
    choices = choices_of(question)
    asks_to_choose = _NEEDS_OPTIONS.search(question) or _CHOICE_WORDS.search(question)
    if choices and (asks_to_choose or _is_chosen(answer, choices)):
        return True
    if _WHICH_OF_FOLLOWING.search(question) or _LISTED.search(question) or _is_of_bullets(question, answer):
        return True
    if _is_number_of_an_option(question, answer) or _is_enumerated(question, answer):
        return True
    chosen = re.fullmatch(r"[\[(]?(?:[A-E]|[1-5]|[ivIV]{1,3})[\])]?\.?", answer)
    return bool(_CHOICE_WORDS.search(question)) and (bool(chosen) or _offers(question, answer))


def _is_of_bullets(question: str, answer: str) -> bool:
    """Tests whether a question ends with a list of short lines, one of which is the answer."""
    lines = _BULLET.findall(question)
    if len(lines) < 3 or not question.rstrip().endswith(lines[-1]) or any(map(_COMMAND.match, lines)):
        return False
    return " ".join(words(answer)) in (" ".join(words(line)) for line in lines)


def _is_enumerated(question: str, answer: str) -> bool:
    """Tests whether an answer is one of three or more things that a sentence names to choose from."""
    said = words(re.sub(r"^(?:the|an?) ", "", answer.strip(), flags=re.IGNORECASE))
    for sentence in re.split(r"(?<=[.?!])\s+|\n", question) if said else ():
        for match in _ENUMERATED.finditer(sentence):
            items = [words(re.sub(r"^(?:the|an?) ", "", item.strip())) for item in _BETWEEN_ITEMS.split(match[1])]
            if len(items) >= 3 and said in items and _CHOOSES.search(sentence):
                return True
    return False


def _is_number_of_an_option(question: str, answer: str) -> bool:
    """Tests whether an answer is the number of one of three or more numbered things, none of which is a number."""
    match = re.fullmatch(r"[\[(]?([1-9])[\])]?\.?", answer.strip())
    places = _marks(question, "123456789", _MARK) if match else []
    if not match or len(places) < max(3, int(match[1])) or not _reads_as_options(question, places):
        return False
    ends = [*[start for start, _ in places[1:]], len(question)]
    return not any(re.search(r"\d", question[end:stop]) for (_, end), stop in zip(places, ends, strict=True))


def _offers(question: str, answer: str) -> bool:
    """Tests whether what follows "options:" lists the answer."""
    match = re.search(
        r"\b(?:options|choices|alternatives)\s*(?:are)?\s*[:=\[(](.*)", question, re.IGNORECASE | re.DOTALL
    )
    return bool(match) and " ".join(words(answer)) in " ".join(words(match[1] if match else ""))


def _is_true_false(question: str, answer: str) -> bool:
    said = answer.strip(" .!'\"").casefold()
    if re.search(r"\d", said):
        return False
    if _TRUE_FALSE.search(question) or re.match(r"(?:true|false)\b(?:$|[.,;:—-])", said):
        return True
    return said in ("t", "f") and not (_COMMAND.match(without_label(question)) or question.endswith("?"))


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
    marks = max((_marks(question, names, _MARK) for names in ("123456789", *_LETTERS)), key=len)
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
    (MULTIPLE_CHOICE, _is_multiple_choice),
    (TRUE_FALSE, _is_true_false),
    (PROOF, _is_proof),
    (SEVERAL_PARTS, _has_parts),
    (YES_NO, _is_yes_no),
    (EITHER_OR, _is_either_or),
)
