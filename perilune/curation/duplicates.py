"""Duplicates among questions: those of one text, and those of one meaning in other words. Answers do not count.

Exact ones share a key (`text.same_text_key`). Near ones are found in two steps: MinHash signatures (datasketch) in
bands give candidates, in memory that grows by 4 bytes a hash and question; each candidate is then compared by what the
two questions really say. Questions with other numbers, signs, variables or an opposite word (least, greatest) are
different questions, however alike their texts are: templates make thousands of those.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from perilune.curation.text import numbers, same_text_key, without_label, words

NUM_HASHES, NUM_BANDS = 64, 16  # 4 hashes a band: a pair of similarity 0.7 meets in one with probability 0.988
MAX_COMPARED = 64  # questions of one bucket that a question is compared with, the earliest first
SIMILARITY = 0.7  # of the words and pairs of words of two near duplicates

# Words that say "answer this" and nothing of what is asked.
_ASKING = frozenset(
    """a an the of is are was were be to for in on at that this it its and please kindly find determine compute
    calculate evaluate work out what which whats give state tell me us figure solve obtain get value result
    answer how much many does do did if suppose assume given let us you your can could would will there has have
    had show with then following express simplify write as we need know exactly""".split()
)
_FILLERS = re.compile(r"\b(?:in total|altogether|all together|in all)\b")  # behind "how many", where they add nothing
_SYNONYMS = {
    word: meaning
    for meaning, synonyms in {
        "min": "least smallest minimum lowest minimal fewest",
        "max": "greatest largest biggest maximum highest maximal most",
        "+": "plus",
        "-": "minus",
        "*": "times multiplied × ·",
        "/": "÷",
        "mean": "average",
        "remainder": "rest left remaining remain remains",
    }.items()
    for word in synonyms.split()
}
# A difference in one of these is another question.
_DECISIVE = frozenset(
    """min max + - * / ^ = < > % total product difference quotient even odd prime composite positive negative not no
    never without except first last before after area perimeter volume surface circumference radius diameter
    mean median mode range variance sin cos tan sine cosine tangent log ln more less fewer increase increases
    decrease decreases increased decreased squared cubed square cube root double triple half third quarter north
    south east west left right up down above below over under true false all none some any only at-least at-most
    inclusive exclusive integer real rational percent remainder hours minutes seconds days weeks years ascending
    descending row column numerator denominator
    monday tuesday wednesday thursday friday saturday sunday january february march april june july august september
    october november december second fourth fifth sixth seventh eighth ninth tenth sum""".split()
)


@dataclass(frozen=True)
class Duplicate:
    """A question that repeats an earlier one."""

    row: int  # its place
    of: int  # the place of the one that stays
    similarity: float  # 1 for one text


def content(question: str) -> list[str]:
    """What a question is about: its words without those that only ask, synonyms as one word.

    >>> content("What is the smallest prime above 10?") == content("Find the least prime above 10.")
    True
    """
    said = words(_FILLERS.sub(" ", without_label(question).casefold()))
    return [_SYNONYMS.get(word, word) for word in said if word not in _ASKING]


def shingles(said: Sequence[str]) -> frozenset[str]:
    """Words, and neighbouring words as pairs."""
    return frozenset(said) | {f"{one} {other}" for one, other in itertools.pairwise(said)}


def similarity(one: str, other: str) -> float:
    """How alike two questions are, from 0 to 1 (Jaccard); 0 if they differ in what makes them two questions.

    >>> similarity("Find the sum of 2 and 3", "Find the sum of 2 and 4")
    0.0
    """
    if numbers(one) != numbers(other):
        return 0.0
    a, b = content(one), content(other)
    if any(word in _DECISIVE or len(word) == 1 for word in _difference(a, b)):
        return 0.0
    both, either = shingles(a) & shingles(b), shingles(a) | shingles(b)
    return len(both) / len(either) if either else 1.0


def _difference(one: Sequence[str], other: Sequence[str]) -> set[str]:
    """Words of which one text has more than the other."""
    a, b = Counter(one), Counter(other)
    return {*(a - b), *(b - a)}


def exact_duplicates(questions: Iterable[str]) -> Iterator[Duplicate]:
    """Questions of one text; the first stays. Memory: 8 bytes for the key of each, and its place."""
    seen: dict[int, int] = {}
    for row, question in enumerate(questions):
        first = seen.setdefault(_hashed(same_text_key(question)), row)
        if first != row:
            yield Duplicate(row, first, 1.0)


def signatures(questions: Iterable[str], num_questions: int) -> np.ndarray:
    """MinHash signatures, and a hash of the numbers that must agree: [num_questions, NUM_HASHES + 1] of uint32."""
    from datasketch import MinHash

    found = np.empty((num_questions, NUM_HASHES + 1), np.uint32)

    def sets() -> Iterator[list[bytes]]:
        for row, question in enumerate(questions):
            found[row, NUM_HASHES] = _hashed(" ".join(numbers(question))) >> 32
            yield [shingle.encode() for shingle in shingles(content(question)) or {""}]

    for row, signature in enumerate(MinHash.generator(sets(), num_perm=NUM_HASHES)):
        found[row, :NUM_HASHES] = signature.hashvalues
    return found


def near_duplicates(
    signed: np.ndarray, question_at: Callable[[int], str], least: float = SIMILARITY
) -> list[Duplicate]:
    """Near duplicates among questions; of each set of them the first stays.

    Args:
        signed: `signatures` of all.
        question_at: the text of one, by its place.
        least: the similarity from which on two are duplicates.
    """
    stays: dict[int, Duplicate] = {}
    for row, earlier in _candidates(signed):
        if row in stays or earlier in stays:
            continue
        alike = similarity(question_at(earlier), question_at(row))
        if alike >= least:
            stays[row] = Duplicate(row, earlier, alike)
    return sorted(stays.values(), key=lambda each: each.row)


def _candidates(signed: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs that share their numbers and a band, (later, earlier), the earlier questions first within a bucket."""
    width = NUM_HASHES // NUM_BANDS
    for band in range(NUM_BANDS):
        columns = [*range(band * width, (band + 1) * width), NUM_HASHES]
        keys = np.ascontiguousarray(signed[:, columns]).view(f"V{4 * len(columns)}").ravel()
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        for start, end in zip(starts, np.r_[starts[1:], len(ordered)], strict=True):
            if end - start > 1:
                rows = order[start:end].tolist()
                for place, row in enumerate(rows):
                    for earlier in rows[: min(place, MAX_COMPARED)]:
                        yield row, earlier


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
