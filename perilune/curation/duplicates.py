"""Duplicates among questions: those of one text, and those of one meaning in other words. Answers do not count.

Exact ones share a key (`text.same_text_key`). Near ones are found in two steps. Candidates share what they are about
(`content` without its order) or a band of a MinHash signature (datasketch), in memory that grows by 280 bytes a
question. Each pair is then compared by what the two really say. Questions with other numbers, signs, variables or an
opposite word (least, greatest) are different questions, however alike their texts are: templates make thousands of
those. A pair that differs in words which no table explains is one question reworded, or two of one template. Where
many questions are alike but for their numbers, their common words are the template's: another word for one of those is
a rewording, another word for any other is another question ("Spell … backwards").
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perilune.curation.synonyms import ASKING, DECISIVE, STEMS, SYNONYMS
from perilune.curation.text import clauses, cleaned, drawing, without_label, words

NUM_HASHES, NUM_BANDS = 63, 21  # 3 hashes a band: a pair of similarity 0.5 meets in one with probability 0.94
NUM_MISSES = 256  # comparisons of one bucket that find nothing, one after another, before it is left
SIMILARITY = 0.7  # of two near duplicates
SAME_NUMBERS = 0.1  # more alike are questions that share two numbers or more
MIN_FAMILY = 3  # questions that are alike but for their numbers
NUM_SAMPLED = 64  # of a large family, to tell the template's words
COMMON = 0.3  # of them say a word of the template
MANY_LETTERS = 8  # single letters in a question, from which on their order counts
_MIX = np.uint64(0x9E3779B97F4A7C15)
_IN_ORDER = frozenset(
    """then next after afterwards before first second third finally later again start starts starting begin begins step
    steps followed add subtract multiply divide remove reverse replace swap rotate turn move now""".split()
)  # sentences that say one of these cannot change places


@dataclass(frozen=True)
class Duplicate:
    """A question that repeats another one."""

    row: int  # its place
    of: int  # the place of the one that stays
    similarity: float  # 1 for one text


@dataclass(frozen=True)
class Signatures:
    """Describes what candidates are found by, an element or row for each question."""

    text: NDArray[np.uint64]  # of its words in their order
    content: NDArray[np.uint64]  # of its content without order
    numbers: NDArray[np.uint64]  # of its numbers without order, and of what is drawn
    minhash: NDArray[np.uint32]  # [questions, NUM_HASHES] of its content, in which all numbers are one

    @staticmethod
    def joined(parts: Sequence[Signatures]) -> Signatures:
        """The signatures of several lists of questions, one after the other."""
        return Signatures(
            np.concatenate([part.text for part in parts]),
            np.concatenate([part.content for part in parts]),
            np.concatenate([part.numbers for part in parts]),
            np.concatenate([part.minhash for part in parts]),
        )


@functools.lru_cache(maxsize=1 << 14)
def content(question: str) -> Sequence[str]:
    """Finds what a question is about: its words without those that only ask, synonyms as one word.

    >>> content("What is the smallest prime above 10?") == content("Find the least prime above 10.")
    True
    """
    return content_of(words(without_label(cleaned(question))))


def content_of(said: Iterable[str]) -> list[str]:
    """The content among words."""
    return [meaning for word in said if word not in ASKING and (meaning := _meaning(word)) not in ASKING]


@functools.lru_cache(maxsize=1 << 16)
def _meaning(word: str) -> str:
    found = SYNONYMS.get(word)
    if found is None and len(word) > 3:
        stem = _stem(word)
        found = SYNONYMS.get(stem, stem)
    return found or word


def _stem(word: str) -> str:
    """A word without the commonest endings: good enough to compare by, no dictionary's form."""
    for ending, put in STEMS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending) + put
    return word


def _shingles(said: Sequence[str]) -> Iterator[str]:
    """Words, and neighbouring words as pairs."""
    yield from said
    yield from _pairs(said)


def _pairs(said: Sequence[str]) -> Iterator[str]:
    return (f"{one} {other}" for one, other in itertools.pairwise(said))


# --- Two questions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Describes how alike two questions are, and the words that only one of them has.

    Words count twice as much as pairs of them. Two numbers or more in common are evidence too: they add SAME_NUMBERS.
    """

    similarity: float
    only_one: frozenset[str] = frozenset()
    only_other: frozenset[str] = frozenset()


def similarity(one: str, other: str) -> float:
    """Returns how alike two questions are, from 0 to 1; 0 if they differ in what makes them two questions.

    >>> similarity("Find the sum of 2 and 3", "Find the sum of 2 and 4")
    0.0
    """
    return compare(one, other).similarity


def compare(one: str, other: str) -> Comparison:
    """Compares two questions, also if their sentences stand in another order and none of them says that it matters."""
    a, b = content(one), content(other)
    if _fixed(a) == _fixed(b):
        return _compared(a, b)
    if sorted(_fixed(a)) != sorted(_fixed(b)):
        return Comparison(0.0)
    ordered = _in_one_order(one), _in_one_order(other)
    if None in ordered:
        return Comparison(0.0)
    first, second = ([word for each in parts or () for word in each] for parts in ordered)
    return _compared(first, second) if _fixed(first) == _fixed(second) else Comparison(0.0)


def _fixed(said: Sequence[str]) -> list[str]:
    """Returns what two questions must say in one order: numbers and signs; letters too, if there are many."""
    short = [word for word in said if len(word) == 1 or not word[0].isalpha()]
    signs = [word for word in short if not word[0].isalpha()]
    return signs if len(short) - len(signs) <= MANY_LETTERS else short


def _in_one_order(question: str) -> list[list[str]] | None:
    """The contents of a question's clauses, sorted; None if their order says something."""
    parts = clauses(without_label(cleaned(question)))
    if len(parts) < 2 or any(word in _IN_ORDER for part in parts for word in part):
        return None
    return sorted(content_of(part) for part in parts)


def _compared(a: Sequence[str], b: Sequence[str]) -> Comparison:
    counted, others = Counter(a), Counter(b)
    only_a, only_b = counted - others, others - counted
    if any(word in DECISIVE or len(word) == 1 or not word[0].isalpha() for word in (*only_a, *only_b)):
        return Comparison(0.0)
    alike = (2 * _jaccard(counted, others) + _jaccard(Counter(_pairs(a)), Counter(_pairs(b)))) / 3
    num_numbers = sum(word[0].isdigit() for word in a)
    more = SAME_NUMBERS if num_numbers > 1 and alike < 1 else 0.0
    return Comparison(min(1.0, alike + more), frozenset(only_a), frozenset(only_b))


def _jaccard(ours: Counter[str], theirs: Counter[str]) -> float:
    either = (ours | theirs).total()
    return (ours & theirs).total() / either if either else 1.0


# --- Many questions ---------------------------------------------------------------------------------------------------


def sign(questions: Sequence[str], beside: Sequence[str] = ()) -> Signatures:
    """The signatures of some questions, and of what belongs to each beside its text, such as pictures."""
    from datasketch import MinHash

    more = beside or [""] * len(questions)
    texts = [cleaned(question) for question in questions]
    said = [words(without_label(text)) for text in texts]
    drawn = [drawing(text) + own for text, own in zip(texts, more, strict=True)]
    contents = [content_of(each) for each in said]
    sets = ([shingle.encode() for shingle in set(_shingles([*map(masked, each)]))] or [b""] for each in contents)
    minhash = [signature.hashvalues for signature in MinHash.generator(sets, num_perm=NUM_HASHES)]
    fixed = [" ".join(sorted(word for word in each if not word[0].isalpha())) for each in contents]
    meant = [" ".join(sorted(each)) for each in contents]

    def hashed(keys: Sequence[str]) -> NDArray[np.uint64]:
        return np.array([_hashed(key + rest) for key, rest in zip(keys, drawn, strict=True)], np.uint64)

    return Signatures(
        hashed([" ".join(each) for each in said]),
        hashed(meant),
        hashed(fixed),
        np.array(minhash, np.uint32).reshape(len(questions), NUM_HASHES),
    )


def exact_duplicates(signed: Signatures, choose: Callable[[Sequence[int]], int] = min) -> Iterator[Duplicate]:
    """Questions of one text; of each set of them the one that `choose` picks stays."""
    for rows in _groups(signed.text):
        stays = choose(rows)
        yield from (Duplicate(row, stays, 1.0) for row in rows if row != stays)


def near_duplicates(
    signed: Signatures, rows: NDArray[np.int64], question_at: Callable[[int], str], least: float = SIMILARITY
) -> list[Duplicate]:
    """Near duplicates among questions; of each set of them the first stays.

    Args:
        signed: the signatures of all questions.
        rows: the places of those that are compared.
        question_at: the text of one, by its place.
        least: the similarity from which on two are duplicates.
    """
    search = _Search(question_at, least)
    for bucket in _buckets(signed, rows):
        search.look_through(bucket)
    families = _families(signed, rows, {row for each, _ in search.found for row in (each.row, each.of)})
    stays: dict[int, Duplicate] = {}
    for each, differ in sorted(search.found, key=lambda pair: (pair[0].row, pair[0].of)):
        if each.row not in stays and each.of not in stays and search.is_rewording(differ, families.get(each.of, ())):
            stays[each.row] = each
    return sorted(stays.values(), key=lambda each: each.row)


def _buckets(signed: Signatures, rows: NDArray[np.int64]) -> Iterator[Sequence[int]]:
    """Places of questions with the same numbers that share their content or a band of their signatures."""
    for group in _groups(signed.content[rows]):
        yield rows[group].tolist()
    for key in _bands(signed, rows):
        for group in _groups((key ^ signed.numbers[rows]) * _MIX):
            yield rows[group].tolist()


def _bands(signed: Signatures, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint64]]:
    """A key of each band of each question's signature."""
    width = NUM_HASHES // NUM_BANDS
    for band in range(NUM_BANDS):
        key = np.zeros(len(rows), np.uint64)
        for column in signed.minhash[rows, band * width : (band + 1) * width].astype(np.uint64).T:
            key = (key ^ column) * _MIX
            key ^= key >> np.uint64(29)
        yield key


def _families(signed: Signatures, rows: NDArray[np.int64], wanted: set[int]) -> dict[int, Sequence[int]]:
    """For questions, the places of those that are alike but for their numbers: some, if there are many."""
    families: dict[int, Sequence[int]] = {}
    sizes: Counter[int] = Counter()
    places = np.flatnonzero(np.isin(rows, list(wanted)))
    for key in _bands(signed, rows) if wanted else ():
        order = np.argsort(key, kind="stable")
        starts = np.searchsorted(key[order], key[places], "left")
        ends = np.searchsorted(key[order], key[places], "right")
        for row, start, end in zip(rows[places].tolist(), starts.tolist(), ends.tolist(), strict=True):
            if end - start > sizes[row]:
                sizes[row] = end - start
                families[row] = rows[order[start : end : max(1, (end - start) // NUM_SAMPLED)]].tolist()
    return families


def _groups(keys: NDArray[np.uint64]) -> Iterator[list[int]]:
    """Places that share a key, in their order, for each key that several have."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(keys) else np.empty(0, np.int64)
    ends = np.r_[starts[1:], len(ordered)]
    several = ends - starts > 1
    for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        yield order[start:end].tolist()


@dataclass
class _Search:
    """Compares the questions of buckets, each pair once."""

    question_at: Callable[[int], str]
    least: float
    found: list[tuple[Duplicate, Comparison]] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def look_through(self, bucket: Sequence[int]) -> None:
        """Compares each question with those before it, until many comparisons have found nothing."""
        num_misses = 0
        for place, row in enumerate(bucket):
            for earlier in bucket[:place]:
                if (row, earlier) in self._seen:
                    continue
                self._seen.add((row, earlier))
                seen = compare(self.question_at(earlier), self.question_at(row))
                if seen.similarity >= self.least:
                    self.found.append((Duplicate(row, earlier, seen.similarity), seen))
                num_misses = 0 if seen.similarity >= self.least and not seen.only_one else num_misses + 1
                if num_misses > NUM_MISSES:
                    return

    def is_rewording(self, seen: Comparison, family: Sequence[int]) -> bool:
        """Tests whether the words in which two questions differ are a template's, of which both are, and not its
        fillings."""
        if not (seen.only_one or seen.only_other) or len(family) < MIN_FAMILY:
            return True
        said = Counter(word for row in family for word in set(content(self.question_at(row))))
        least = max(2.0, COMMON * len(family))
        return any(all(said[word] >= least for word in words) for words in (seen.only_one, seen.only_other) if words)


def masked(word: str) -> str:
    """A word, or one sign for all numbers."""
    return "#" if word[0].isdigit() else word


_TOKENS: dict[str, int] = {}


def token(word: str) -> int:
    """A hash of one word, the same in every process."""
    found = _TOKENS.get(word)
    if found is None:
        if len(_TOKENS) > 1 << 20:
            _TOKENS.clear()
        found = _TOKENS[word] = _hashed(word)
    return found


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
