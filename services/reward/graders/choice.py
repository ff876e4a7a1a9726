"""The answer is the right option of a multiple choice, by its letter or by its text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field

from perilune.errors import InvalidInputError
from services.reward.answer_extraction import committed
from services.reward.choices import chosen_letter, plain_choice
from services.reward.equality.expression import TooLargeError
from services.reward.equality.structure import equal
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict

LETTERS = "ABCDEFGHIJ"
_OPTION = re.compile(r"(?:^|\s)\(?([A-J])[).:]\s+(\S.*?)(?=\s*(?:(?:^|\s)\(?[A-J][).:]\s+\S|\n\s*\n|\Z))", re.DOTALL)


# A letter with the text of its option, and several letters.
_LETTERED = re.compile(
    r"(?:(?:option|choice)\s+)?[(\[]?([A-Ja-j])"
    r"(?:[)\].:：、,-]+\s*|\s+[-–—=(]\s*|\s+(?:is|which is)\s+)(\S.*)",
    re.DOTALL,
)
_LISTED = re.compile(r"\(?[A-J]\)?(?:[\s,;&/、]*(?:and|和|与|及)?[\s,;&/]*\(?[A-J]\)?)*")
_AROUND = re.compile(
    r"^(?:(?:the )?(?:correct |right )?(?:answers?|options?|choices?)(?: (?:are|is))?:?|both|选项?"
    r"|I (?:choose|pick|select))\s*"
    r"|\s+(?:are|is)(?: all| both)?(?: the)? (?:correct|right|true)(?: (?:answers?|options?|ones?|choices?))?\W*$",
    re.IGNORECASE,
)


class ChoiceOptions(GraderOptions):
    """Options of the grader `choice`."""

    choices: str = Field("", description="the options' texts, a line each, the first being A; empty: read the question")
    multiple: bool = Field(False, description="several letters are asked for: `A, C` needs both and no other")
    marker: str = Field("", description="the answer follows the last one; empty: last box, `answer is`, or last line")


def grade(sample: GradingSample, options: ChoiceOptions) -> Verdict:
    """The verdict on a sample."""
    texts = _texts(options.choices, sample.question)
    wanted = _letters(sample.reference, texts)
    if not wanted or (len(wanted) > 1 and not options.multiple):
        raise InvalidInputError(f"the reference {sample.reference!r:.80} is no option: give its letter or its text")
    answer = committed(sample.response, options.marker) or ""
    found = _letters(answer, texts) if options.multiple else _letter(answer, texts)
    return Verdict.of(found == wanted, answer=", ".join(sorted(found)) or answer, reference=", ".join(sorted(wanted)))


def _texts(choices: str, question: str) -> dict[str, str]:
    if choices.strip():
        return dict(zip(LETTERS, (line.strip() for line in choices.splitlines() if line.strip()), strict=False))
    found = _OPTION.findall(question)
    in_order = [letter for letter, _ in found] == list(LETTERS[: len(found)])
    return {letter: text.strip() for letter, text in found} if in_order and len(found) > 1 else {}


def _letters(text: str, texts: Mapping[str, str]) -> frozenset[str]:
    """The options that a text lists; of a single one also by its text."""
    bare = _AROUND.sub("", plain_choice(text)).strip(" .")
    if _LISTED.fullmatch(bare):
        return frozenset(re.findall(r"[A-J]", bare.replace("and", "")))
    return _letter(text, texts)


def _letter(text: str, texts: Mapping[str, str]) -> frozenset[str]:
    """The one option that a text commits to; none if it hedges."""
    text = plain_choice(text)
    if lettered := _LETTERED.fullmatch(text):
        said = _named(lettered[2].strip(" ().\"'"), texts)
        if said and said != frozenset([lettered[1].upper()]):
            return frozenset()  # the letter of one option and the text of another
    if len(same := _named(text, texts)) == 1:
        return same
    letter = chosen_letter(text)
    return frozenset([letter] if letter else [])


def _named(text: str, texts: Mapping[str, str]) -> frozenset[str]:
    """The options that have this text."""
    return frozenset(letter for letter, option in texts.items() if _same(option, text))


def _same(option: str, text: str) -> bool:
    try:
        return equal(option, text) is True
    except TooLargeError:
        return False


GRADER = Grader(
    name="choice",
    version="3",
    description="1 if the answer is the right option, by letter or by text, else 0; hedging is wrong",
    options=ChoiceOptions,
    grade=grade,
)
