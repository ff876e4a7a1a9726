"""Questions that evaluation sets hold as well: runs of words (n-grams of 8 and 13, as the field uses them) in common.

A question is contaminated if it is a question of an evaluation set in its words, if they share a run of 13 words and
half of the numbers, or if at least half of its runs of 8 words occur in one evaluation question with all of its
numbers. A template filled with other numbers is another question. The text of a template, which many questions of one
evaluation set share, is no evidence: runs that occur in more than MAX_SHARED of them, or of the questions that are
asked for, are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from perilune.curation.duplicates import content
from perilune.curation.text import numbers, same_text_key, words

LONG, SHORT = 13, 8  # words of a run
SHORT_SHARE = 0.5  # of a question's short runs
MAX_SHARED = 10


@dataclass(frozen=True)
class Overlap:
    """What a question has in common with an evaluation set."""

    evaluation: str  # the set's name
    question: int  # its place there
    evidence: str  # the words in common


@dataclass
class EvaluationSets:
    """Evaluation questions by their runs of words; filled once, asked for each question."""

    _texts: dict[str, tuple[str, int]] = field(default_factory=dict)
    _long: dict[int, tuple[str, int]] = field(default_factory=dict)
    _short: dict[int, tuple[str, int]] = field(default_factory=dict)
    _numbers: dict[tuple[str, int], Counter[str]] = field(default_factory=dict)

    def add(self, name: str, questions: Iterable[str]) -> int:
        """Takes the questions of one set; gives their number."""
        said = []
        for place, question in enumerate(questions):
            said.append(words(question))
            self._numbers[name, place] = Counter(numbers(question))
        for size, found in ((LONG, self._long), (SHORT, self._short)):
            shared = Counter(run for each in said for run in set(_runs(each, size)))
            for place, each in enumerate(said):
                found.update({run: (name, place) for run in _runs(each, size) if shared[run] <= MAX_SHARED})
        for place, each in enumerate(said):
            self._texts[_key(" ".join(each))] = (name, place)
        return len(said)

    def leave_out_templates(self, questions: Iterable[str]) -> None:
        """Leaves out runs that many of the questions to be asked for share: the text of their own templates."""
        shared: Counter[int] = Counter()
        for question in questions:
            said = words(question)
            shared.update({run for run in _runs(said, LONG) if run in self._long})
            shared.update({run for run in _runs(said, SHORT) if run in self._short})
        for run, number in shared.items():
            if number > MAX_SHARED:
                self._long.pop(run, None)
                self._short.pop(run, None)

    def overlap(self, question: str) -> Overlap | None:
        """What a question shares with an evaluation set; None if it is clean."""
        said = words(question)
        if found := self._texts.get(_key(question)):
            return Overlap(*found, evidence=" ".join(said))
        given = Counter(numbers(question))
        for start, run in enumerate(_runs(said, LONG)):
            if (found := self._long.get(run)) and self._share_of_numbers(found, given) >= SHORT_SHARE:
                return Overlap(*found, evidence=" ".join(said[start : start + LONG]))
        return self._half_shared(said, given)

    def _share_of_numbers(self, place: tuple[str, int], given: Counter[str]) -> float:
        """The share of an evaluation question's numbers that a question has too; 1 if it has none."""
        asked = self._numbers[place]
        return (asked & given).total() / asked.total() if asked else 1.0

    def _half_shared(self, said: list[str], given: Counter[str]) -> Overlap | None:
        runs = list(_runs(said, SHORT))
        places = Counter(self._short[run] for run in runs if run in self._short)
        if not places:
            return None
        most, num_shared = places.most_common(1)[0]
        if num_shared < SHORT_SHARE * len(runs) or self._share_of_numbers(most, given) < 1:
            return None
        first = next(start for start, run in enumerate(runs) if self._short.get(run) == most)
        return Overlap(*most, evidence=" ".join(said[first : first + SHORT]))


def _runs(said: list[str], size: int) -> Iterator[int]:
    return (hash(tuple(said[start : start + size])) for start in range(len(said) - size + 1))


def _key(question: str) -> str:
    """What two questions of one meaning have in common, however short they are."""
    said = same_text_key(question)
    return f"{' '.join(content(said))}|{' '.join(numbers(said))}"
