"""Instructions that a program can check: the twenty-five of IF-Eval (Zhou et al. 2023, arXiv:2311.07911), table 1.

An instruction is a name and arguments, as IF-Eval's data set has them:
`[{"id": "length_constraints:number_words", "num_words": 100, "relation": "at least"}]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field

from perilune.errors import InvalidInputError
from services.reward.answer_extraction import without_thinking
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict, nearest
from services.reward.graders.length import count
from services.reward.languages import is_in
from services.reward.sentences import count_sentences

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]

MAX_CHARS = 200_000


class InstructionsOptions(GraderOptions):
    """Options of the grader `instructions`."""

    instructions: str = Field("", description="a JSON list of instructions; empty: the reference is it")
    partial: bool = Field(False, description="the share of instructions followed, instead of all or nothing")


def grade(sample: GradingSample, options: InstructionsOptions) -> Verdict:
    """The verdict on a sample."""
    instructions = _read(options.instructions or sample.reference)
    response = without_thinking(sample.response).strip()
    if not response or len(response) > MAX_CHARS:  # silence breaks no rule, but is no answer
        return Verdict(0.0, {"why": "the response is empty" if not response else "the response is too long"})
    followed = {
        f"{i}. {name}": CHECKS[name](response, arguments) for i, (name, arguments) in enumerate(instructions, 1)
    }
    broken = [name for name, kept in followed.items() if not kept]
    value = 1 - len(broken) / len(followed) if options.partial else float(not broken)
    return Verdict(value, {"broken": ", ".join(broken), "instructions": str(len(followed))})


def _read(text: str) -> list[tuple[str, Arguments]]:
    """The instructions and their arguments, checked by a trial run. InvalidInputError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the instructions are no JSON list: {error}") from error
    if not isinstance(found, list) or not found or not all(isinstance(item, dict) for item in found):
        raise InvalidInputError('the instructions are no JSON list of objects such as {"id": "punctuation:no_comma"}')
    read: list[tuple[str, Arguments]] = [
        (str(item.get("id")), {key: value for key, value in item.items() if key != "id"}) for item in found
    ]
    for name, arguments in read:
        if name not in CHECKS:
            raise InvalidInputError(f"there is no instruction {name!r}; {nearest(name, list(CHECKS))}")
        try:
            CHECKS[name]("A trial.", arguments)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"instruction {name!r}: wrong or missing argument: {error!r}") from error
    return read


def _relation(number: int, arguments: Arguments, name: str, relation: str = "relation") -> bool:
    """`at least` n or `less than` n."""
    wanted, kind = int(arguments[name]), arguments.get(relation) or "at least"
    if kind not in ("at least", "less than"):
        raise ValueError(f"{relation} is `at least` or `less than`, not {kind!r}")
    return number >= wanted if kind == "at least" else number < wanted


def _occurrences(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _letters(text: str, letter: str) -> int:
    if len(letter) != 1:
        raise ValueError(f"one letter, not {letter!r}")
    return text.lower().count(letter.lower())


def _paragraphs(text: str, divider: str = r"\s?\*\*\*\s?") -> list[str]:
    return [part.strip() for part in re.split(divider, text)]


def _number_paragraphs(text: str, arguments: Arguments) -> bool:
    parts = _paragraphs(text)
    inner = parts[bool(not parts[0]) : len(parts) - bool(not parts[-1])]
    return all(inner) and len(inner) == int(arguments["num_paragraphs"])


def _nth_paragraph(text: str, arguments: Arguments) -> bool:
    parts = [part for part in _paragraphs(text, r"\n\s*\n") if part]
    place = int(arguments["nth_paragraph"]) - 1
    if place < 0:
        raise ValueError("nth_paragraph counts from 1")
    if len(parts) != int(arguments["num_paragraphs"]) or place >= len(parts):
        return False
    words = parts[place].split()
    return words[0].lstrip("'\"").rstrip(".,?!'\"").lower() == str(arguments["first_word"]).lower()


def _postscript(text: str, arguments: Arguments) -> bool:
    marker = str(arguments["postscript_marker"])
    pattern = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, re.escape(marker.lower()))
    # At the beginning of a line, behind its marks, or of a sentence.
    return (
        re.search(rf"(?:^[\s*_#>-]*|[.!?][\"”)*_]*\s+[*_]*){pattern}[*_:.\s]*\S.*$", text.lower(), re.MULTILINE)
        is not None
    )


def _highlights(text: str, arguments: Arguments) -> bool:
    found = [part.strip("* ") for part in re.findall(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*", text)]
    return len([part for part in found if part]) >= int(arguments["num_highlights"])


def _sections(text: str, arguments: Arguments) -> bool:
    """Sections that are not empty: their heading begins a line, behind its marks, and may have text of its own."""
    splitter = re.escape(str(arguments["section_spliter"]).strip())
    heading = rf"^[\s*_#>|-]*(?:\d+[.)]\s+)?[*_]*{splitter}\s*(?:\d+|[IVXL]+|[A-Z])\b(?!['’])"
    parts = re.split(heading, text, flags=re.MULTILINE | re.IGNORECASE)
    return sum(any(map(str.isalnum, part)) for part in parts[1:]) >= int(arguments["num_sections"])


def _is_json(text: str, arguments: Arguments) -> bool:
    text = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str, arguments: Arguments) -> bool:
    parts = [part.strip() for part in text.split("******")]
    inner = parts[bool(not parts[0]) : len(parts) - bool(not parts[-1])]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def _repeats_prompt(text: str, arguments: Arguments) -> bool:
    prompt = str(arguments["prompt_to_repeat"]).strip().lower()
    return text.lower().startswith(prompt) and len(text) > len(prompt) + 1


def _capital_words(text: str, arguments: Arguments) -> bool:
    words = re.findall(r"(?:[^\W\d_]\.){2,}|[^\W\d_]+(?:['’-][^\W\d_]+)*", text)
    return _relation(sum(word.isupper() for word in words), arguments, "capital_frequency", "capital_relation")


def _forbids(text: str, arguments: Arguments) -> bool:
    return not any(_occurrences(text, str(word)) for word in _list(arguments, "forbidden_words"))


def _list(arguments: Arguments, name: str) -> list[Any]:
    value = arguments[name]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} is a list")
    return value


CHECKS: dict[str, Check] = {
    "keywords:existence": lambda text, a: all(_occurrences(text, str(word)) for word in _list(a, "keywords")),
    "keywords:frequency": lambda text, a: _relation(_occurrences(text, str(a["keyword"])), a, "frequency"),
    "keywords:forbidden_words": _forbids,
    "keywords:letter_frequency": lambda text, a: _relation(
        _letters(text, str(a["letter"])), a, "let_frequency", "let_relation"
    ),
    "language:response_language": lambda text, a: is_in(text, str(a["language"])),
    "length_constraints:number_sentences": lambda text, a: _relation(count_sentences(text), a, "num_sentences"),
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": lambda text, a: _relation(count(text), a, "num_words"),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, a: (
        len(re.findall(r"\[[^\[\]\n]+\]", text)) >= int(a["num_placeholders"])
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda text, a: (
        len(re.findall(r"^[ \t]*(?:\*(?!\*)|-(?!-))[ \t]*(?!(?:[*_-][ \t]*)+$)\S.*$", text, re.MULTILINE))
        == int(a["num_bullets"])
    ),
    "detectable_format:constrained_response": lambda text, a: any(
        answer in text for answer in ("My answer is yes.", "My answer is no.", "My answer is maybe.")
    ),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda text, a: re.search(r"<<[^\n<>]*\S[^\n<>]*>>", text) is not None,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats_prompt,
    "startend:end_checker": lambda text, a: (
        text.strip(" \n\"'").lower().endswith(str(a["end_phrase"]).strip(" \n\"'").lower())
    ),
    "startend:quotation": lambda text, a: len(text) > 2 and text[0] in '"“' and text[-1] in '"”',
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text, a: text.isupper() and is_in(text, "en"),
    "change_case:english_lowercase": lambda text, a: text.islower() and is_in(text, "en"),
    "punctuation:no_comma": lambda text, a: not re.search(r"[,，、]", text),
}

GRADER = Grader(
    name="instructions",
    version="2",
    description="1 if every instruction that a program can check (IF-Eval) is followed, else 0",
    options=InstructionsOptions,
    grade=grade,
)
