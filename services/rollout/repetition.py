"""Repetition while decoding, on token ids (k1.5 §2.6.2): exact cycles and near-cycles, amortised O(1) a token.

A short n-gram that occurred before proposes a period: the distance to its last occurrence. From then on each token is
compared with the one a period before. A match adds 1 to a surplus, a mismatch takes away as many matches as the rule's
similarity demands for one; at 0 the period is dropped. So a cycle in which fewer than 1 in 10 tokens change, such as a
counter in a loop of ten words, gathers surplus at its own slower rate, and a table, whose cells differ more often than
that, never does. What is found must be long (`min_tokens`) and must have come round often (`min_repeats`): a ruler of
dashes or a row of zeros is short, and a poem's refrain comes round rarely.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NGRAM = 6  # tokens whose recurrence proposes a period; changes in a near-cycle may be as close as this


@dataclass(frozen=True)
class Rule:
    """Describes when a response has repeated itself."""

    min_tokens: int = 384  # surplus of matches
    min_repeats: int = 6  # periods that were copied
    similarity: float = 0.9  # share of matches at which the surplus does not grow any more; 1: exact copies only


@dataclass(frozen=True)
class Cycle:
    """A repetition that was found."""

    start: int  # the token, counted from 0, at which the first copy begins
    period: int  # tokens


class RepetitionDetector:
    """Fed a response token by token, over all its segments; one for each sample."""

    def __init__(self, rule: Rule, tokens: Iterable[int] = ()) -> None:
        """`tokens`: the response so far, where it is continued."""
        self._rule = rule
        exact = rule.similarity >= 1
        self._cost = float("inf") if exact else rule.similarity / (1 - rule.similarity)  # of a mismatch, in matches
        self._tokens: list[int] = []
        self._last_seen: dict[int, int] = {}  # hash of an n-gram to the place after it; a collision is soon dropped
        self._period = 0  # 0: none is followed
        self._start = 0
        self._surplus = 0.0
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> Cycle | None:
        """Takes the next token; returns the cycle that it completes, if it does."""
        tokens = self._tokens
        tokens.append(token)
        place = len(tokens)
        if self._period:
            matches = token == tokens[-1 - self._period]
            self._surplus = self._surplus + 1 if matches else max(0.0, self._surplus - self._cost)
            if not self._surplus:
                self._period = 0
        if place >= NGRAM:
            ngram = hash(tuple(tokens[-NGRAM:]))
            before = self._last_seen.get(ngram)
            self._last_seen[ngram] = place
            if not self._period and before is not None:
                self._period, self._start, self._surplus = place - before, place - NGRAM, float(NGRAM)
        long_enough = self._surplus >= self._rule.min_tokens
        if long_enough and place - self._start >= self._rule.min_repeats * self._period:
            return Cycle(self._start, self._period)
        return None
