"""Says how much of a response repeats itself, in words or, where loops have no spaces, in characters."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict

_WORD = re.compile(r"\w+|[^\w\s]")


class RepetitionOptions(GraderOptions):
    """Options of the grader `repetition`."""

    words: int = Field(5, ge=2, le=100, description="length of the sequences of words that are looked for")
    chars: int = Field(24, ge=4, le=1000, description="length of the sequences of characters that are looked for")
    most: float = Field(0.3, ge=0, lt=1, description="largest share of repeated sequences that is right")
    graded: bool = Field(False, description="fall from 1 at the largest right share to 0, where all is repeated")


def grade(sample: GradingSample, options: RepetitionOptions) -> Verdict:
    """The verdict on a sample."""
    if not sample.response.strip():
        return Verdict(0.0, {"why": "the response is empty"})
    share = repeated_share(sample.response, options.words, options.chars)
    excess = max(0.0, share - options.most) / (1 - options.most)
    value = 1 - excess if options.graded else float(excess == 0)
    return Verdict(value, {"repeated": f"{share:.3f}"})


def repeated_share(text: str, words: int = 5, chars: int = 24) -> float:
    """The share of sequences that occurred before, in [0, 1]: of words, of characters, whichever is larger."""
    text = text.casefold()
    return max(_repeated(_WORD.findall(text), words), _repeated("".join(text.split()), chars))


def _repeated(items: Sequence[str], length: int) -> float:
    """A loop shorter than the sequences shows at any of them; a text shorter than one has no repetition but of
    single items."""
    count = len(items) - length + 1
    if count < 1:
        return 1 - len(set(items)) / len(items) if len(items) > 3 and len(set(items)) < 3 else 0.0
    distinct = {hash(tuple(items[start : start + length])) for start in range(count)}
    looped = 1.0 if count > 1 and len(distinct) == 1 else 0.0
    return max(looped, 1 - len(distinct) / count)


GRADER = Grader(
    name="repetition",
    version="1",
    description="1 if the response does not repeat itself, else 0, or less the more it does",
    options=RepetitionOptions,
    grade=grade,
)
