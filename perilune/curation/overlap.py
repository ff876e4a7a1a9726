"""Questions that evaluation sets hold as well: in their words, in other words, inside a longer text, or in parts.

A question is contaminated if

- it, or one of its sentences, is a question of an evaluation set in its words;
- it says all of an evaluation question in other words (`duplicates.compare`), or holds it inside a longer text;
- they share a run of 13 words and most of the numbers, or half of its runs of 8 words occur in one evaluation question
  with all of its numbers (n-grams of 8 and 13, as the field uses them).

A template filled with other numbers or words is another question. The text of a template, which many questions of one
evaluation set share, is no evidence: runs that occur, with any numbers, in more than MAX_SHARED of them, or of the questions that are
asked for, are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from perilune.curation.duplicates import SIMILARITY, compare, content, content_of, masked, token
from perilune.curation.synonyms import DECISIVE
from perilune.curation.text import cleaned, numbers, without_label, words

LONG, SHORT = 13, 8  # words of a run
LONG_SHARE = 0.7  # of the numbers of an evaluation question, more than which a question has with a long run of it
SHORT_SHARE = 0.5  # of a question's short runs
MAX_SENTENCES = 8  # of an evaluation question
MAX_SHARED = 3
INSIDE = 0.85  # of an evaluation question's pairs of words, in a longer text that holds it
MAX_LIKE = 4  # evaluation questions, or questions, that are like one but for some words: more are a template's
MIN_INSIDE = 4  # words of content, from which on a question is found inside a sentence of others
_MODULUS, _BASE = (1 << 61) - 1, 0x1F3D5B79
_SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+|\n+|[\"“”«»]")


@dataclass(frozen=True)
class Overlap:
    """Describes what a question has in common with an evaluation set."""

    evaluation: str  # the set's name
    question: int  # its place there
    evidence: str  # the words in common


@dataclass(frozen=True)
class Match:
    """An overlap, and what would show that it is a template's: none of these if it is sure."""

    overlap: Overlap
    runs: frozenset[int] = frozenset()  # the runs of words in common
    like: frozenset[int] = frozenset()  # evaluation questions that say the same but for some words


@dataclass(frozen=True)
class _Question:
    """An evaluation question as it is compared."""

    evaluation: str
    place: int
    text: str
    numbers: Counter[str]
    content: Counter[str]
    pairs: frozenset[int]


@dataclass
class EvaluationSets:
    """Evaluation questions by their words; filled once, asked for each question."""

    questions: list[_Question] = field(default_factory=list)
    _texts: dict[str, int] = field(default_factory=dict)
    _long: dict[int, int] = field(default_factory=dict)
    _short: dict[int, int] = field(default_factory=dict)
    _pairs: dict[int, list[int]] = field(default_factory=dict)  # the rarest pairs of each question

    def add(self, name: str, questions: Iterable[str]) -> int:
        """Takes the questions of one set; gives their number."""
        first = len(self.questions)
        said = []
        for place, text in enumerate(questions):
            said.append(words(text))
            meant = content(text)
            given = Counter(numbers(text))
            self.questions.append(_Question(name, place, text, given, Counter(meant), frozenset(_runs(meant, 2))))
            self._texts.setdefault(" ".join(meant), first + place)
        masks = [[*map(masked, each)] for each in said]
        for size, found in ((LONG, self._long), (SHORT, self._short)):
            shared = Counter(run for each in masks for run in set(_runs(each, size)))
            for place, (each, mask) in enumerate(zip(said, masks, strict=True), first):
                runs = zip(_runs(each, size), _runs(mask, size), strict=True)
                found.update({run: place for run, masked_run in runs if shared[masked_run] <= MAX_SHARED})
        self._index_pairs(first)
        return len(said)

    def _index_pairs(self, first: int) -> None:
        """Indexes each new question by so many of its rarest pairs that what is alike enough has one of them."""
        shared = Counter(pair for each in self.questions for pair in each.pairs)
        for place, each in enumerate(self.questions[first:], first):
            if each.content.total() >= MIN_INSIDE:
                rarest = sorted(each.pairs, key=lambda pair: (shared[pair], pair))
                for pair in rarest[: int((1 - SIMILARITY / 2) * len(rarest)) + 1]:
                    self._pairs.setdefault(pair, []).append(place)

    # --- One question -------------------------------------------------------------------------------------------------

    def match(self, question: str) -> Match | None:
        """Returns what a question shares with an evaluation set; None if it is clean."""
        text = cleaned(question)
        said = words(without_label(text))
        meant = content_of(said)
        if (found := self._texts.get(" ".join(meant))) is not None:
            return Match(self._overlap(found, said))
        if (found := self._sentences(text)) is not None:
            return Match(self._overlap(found, words(self.questions[found].text)))
        given = Counter(word for word in said if word[0].isdigit())
        return self._in_other_words(question, meant) or self._by_runs(said, given)

    def _sentences(self, text: str) -> int | None:
        """The evaluation question that some sentences of a text are."""
        sentences = _SENTENCE_END.split(text)
        if len(sentences) < 2:
            return None
        parts = [content_of(words(without_label(sentence))) for sentence in sentences]
        for start in range(len(parts)):
            said: list[str] = []
            for part in parts[start : start + MAX_SENTENCES]:
                said += part
                if len(said) > 1 and (found := self._texts.get(" ".join(said))) is not None:
                    return found
        return None

    def _in_other_words(self, question: str, said: Sequence[str]) -> Match | None:
        """Finds an evaluation question in other words, alone or inside a longer text."""
        pairs = set(_runs(said, 2))
        counted = Counter(said)
        hits = Counter(place for pair in pairs for place in self._pairs.get(pair, ()))
        like: list[int] = []
        for place, _ in hits.most_common(2 * MAX_LIKE):
            each = self.questions[place]
            is_long = len(said) > 1.5 * each.content.total()
            missing = self._missing_inside(counted, pairs, each) if is_long else self._missing(question, each)
            if missing is not None and not missing:
                return Match(Overlap(each.evaluation, each.place, each.text))
            if missing:
                like.append(place)
        if not like:
            return None
        each = self.questions[like[0]]
        return Match(Overlap(each.evaluation, each.place, each.text), like=frozenset(like))

    def _missing(self, question: str, each: _Question) -> frozenset[str] | None:
        """The words in which a question and an evaluation question differ that are alike; None if they are not."""
        seen = compare(each.text, question)
        return seen.only_one | seen.only_other if seen.similarity >= SIMILARITY else None

    def _missing_inside(self, counted: Counter[str], pairs: set[int], each: _Question) -> frozenset[str] | None:
        """The words that a longer text lacks of an evaluation question that it holds; None if it does not hold it."""
        missing = each.content - counted
        if any(word in DECISIVE or len(word) == 1 or not word[0].isalpha() for word in missing):
            return None
        return frozenset(missing) if len(each.pairs & pairs) >= INSIDE * len(each.pairs) else None

    def _by_runs(self, said: list[str], given: Counter[str]) -> Match | None:
        found = [(start, run) for start, run in enumerate(_runs(said, LONG)) if run in self._long]
        for start, run in found:
            if self._share_of_numbers(self._long[run], given) > LONG_SHARE:
                overlap = self._overlap(self._long[run], said[start : start + LONG])
                return Match(overlap, frozenset(run for _, run in found))
        runs = list(_runs(said, SHORT))
        places = Counter(self._short[run] for run in runs if run in self._short)
        if not places:
            return None
        most, num_shared = places.most_common(1)[0]
        if num_shared < SHORT_SHARE * len(runs) or self._share_of_numbers(most, given) < 1:
            return None
        first = next(start for start, run in enumerate(runs) if self._short.get(run) == most)
        common = frozenset(run for run in runs if run in self._short)
        return Match(self._overlap(most, said[first : first + SHORT]), common)

    def _share_of_numbers(self, place: int, given: Counter[str]) -> float:
        """The share of an evaluation question's numbers that a question has too; 1 if it has none."""
        asked = self.questions[place].numbers
        return (asked & given).total() / asked.total() if asked else 1.0

    def _overlap(self, place: int, said: Sequence[str]) -> Overlap:
        each = self.questions[place]
        return Overlap(each.evaluation, each.place, " ".join(said))

    # --- Many questions -----------------------------------------------------------------------------------------------

    def without_templates(
        self, matches: Sequence[tuple[int, Match]], question_at: Callable[[int], str]
    ) -> Iterator[tuple[int, Overlap]]:
        """The overlaps among the matches of all questions that were asked for, without those of templates.

        Args:
            matches: with the questions' numbers.
            question_at: the question of a number.
        """
        runs = Counter(run for _, match in matches for run in match.runs)
        templates = {run for run, number in runs.items() if number > MAX_SHARED}
        for run in templates:
            self._long.pop(run, None)
            self._short.pop(run, None)
        like = Counter(place for _, match in matches for place in match.like)
        for number, match in matches:
            again = self.match(question_at(number)) if match.runs & templates else match
            if again and len(again.like) <= MAX_LIKE and all(like[place] <= MAX_LIKE for place in again.like):
                yield number, again.overlap

    def overlaps(self, questions: Sequence[str]) -> dict[int, Overlap]:
        """Returns what questions share with the sets, by their places."""
        matches = [(place, match) for place, text in enumerate(questions) if (match := self.match(text))]
        return dict(self.without_templates(matches, questions.__getitem__))


def matches(sets: EvaluationSets, chunk: Sequence[tuple[int, str]]) -> list[tuple[int, Match]]:
    """The matches among numbered questions."""
    return [(number, match) for number, text in chunk if (match := sets.match(text))]


def _runs(said: Sequence[str], size: int) -> Iterator[int]:
    """A hash of each run of so many words, the same in every process."""
    if len(said) < size:
        return
    leaving = pow(_BASE, size, _MODULUS)
    tokens = [token(word) % _MODULUS for word in said]
    rolled = 0
    for place, each in enumerate(tokens):
        rolled = (rolled * _BASE + each) % _MODULUS
        if place >= size:
            rolled = (rolled - tokens[place - size] * leaving) % _MODULUS
        if place >= size - 1:
            yield rolled or 1
