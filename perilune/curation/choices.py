"""Options of a question: where they are marked, and whether an answer chooses one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perilune.curation.text import words

# How an option or a part is numbered: (A), [A], A), A., A:, \textbf{(A)}, <A>, A -, and "Option A:" before all of them.
MARK = (
    r"(?:(?i:option|choice|answer|part)\s+)?"
    r"(?:\(\s*{letter}\s*\)|\[\s*{letter}\s*\]|<\s*{letter}\s*>|\{{\s*{letter}\s*\}}|\*\*\(?{letter}\)?[.:)]?\*\*"
    r"|\b{letter}\s*[.):]|\b{letter}、|\b{letter}\s+[-–—]\s|[\"']{letter}[\"']\s*:"
    r"|\\textbf\{{\s*\(?{letter}\)?\s*\.?\}}|\\text\{{\s*\(?{letter}\)?\s*\}}|\\mathrm\{{\s*\(?{letter}\)?\s*\}})"
)
_MARKED_WORDS = r"(?i:option|choice)\s+{letter}\b\s*[-:.)]?"
LETTERS = ("ABCDEFGHIJ", "abcdefghij")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi")
ASKING = (
    "find|determine|compute|calculate|evaluate|what|how|which|who|when|where|why|solve|simplify|list|name|state|give"
)
COMMAND = re.compile(
    rf"(?:{ASKING}|prove|show|write|explain|draw|sketch|describe|express|if|use|using|hence|deduce|is|are|does|do|can|"
    r"construct|plot|graph|verify|sum up|convert|factor|expand|estimate|identify)\b",
    re.IGNORECASE,
)
NEEDS_OPTIONS = re.compile(
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
ALL_OR_NONE = re.compile(
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
_BULLET = re.compile(r"^\s*[-–•*·]\s+(\S.{0,80}?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Choices:
    """A multiple-choice question taken apart."""

    stem: str
    options: Mapping[str, str]  # letter to text


def is_multiple_choice(question: str, answer: str) -> bool:
    """Tests whether a question has its answer chosen from some that it gives."""
    choices = choices_of(question)
    asks_to_choose = NEEDS_OPTIONS.search(question) or _CHOICE_WORDS.search(question)
    if choices and (asks_to_choose or _is_chosen(answer, choices)):
        return True
    if _WHICH_OF_FOLLOWING.search(question) or _LISTED.search(question) or _is_of_bullets(question, answer):
        return True
    if _is_number_of_an_option(question, answer) or _is_enumerated(question, answer):
        return True
    chosen = re.fullmatch(r"[\[(]?(?:[A-E]|[1-5]|[ivIV]{1,3})[\])]?\.?", answer)
    return bool(_CHOICE_WORDS.search(question)) and (bool(chosen) or _offers(question, answer))


def choices_of(question: str) -> Choices | None:
    """The options of a question: three or more in the order of the alphabet, or two that begin lines; None without."""
    for letters in LETTERS:
        for pattern in (MARK, _MARKED_WORDS):
            places = marks_in(question, letters, pattern)
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
    if not (NEEDS_OPTIONS.search(question) or _CHOICE_WORDS.search(question)):
        return None
    for names in ("123456789", _ROMAN):
        places = marks_in(question, names, MARK)
        if len(places) >= 2 and _reads_as_options(question, places):
            return _options(question, "A", places)
    return None


def _are_two_options(question: str, places: Sequence[tuple[int, int]]) -> bool:
    return all(_opens_line(question, start) for start, _ in places) or bool(NEEDS_OPTIONS.search(question))


def marks_in(question: str, letters: Sequence[str], mark: str) -> list[tuple[int, int]]:
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
    return not any(text.endswith("?") or COMMAND.match(text) for text in texts)


def letter_of(answer: str) -> str:
    """The letter of the option that an answer names; empty if it names none."""
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
    if not said or letter_of(answer):
        return True
    return any(said and said in " ".join(words(text)) for text in choices.options.values())


def _is_of_bullets(question: str, answer: str) -> bool:
    """Tests whether a question ends with a list of short lines, one of which is the answer."""
    lines = _BULLET.findall(question)
    if len(lines) < 3 or not question.rstrip().endswith(lines[-1]) or any(map(COMMAND.match, lines)):
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
    places = marks_in(question, "123456789", MARK) if match else []
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
