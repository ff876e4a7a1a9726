"""The decisions: which output is expected, which case is valid, which problem stays (k1.5 §2.3.5), TPR and TNR."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perilune.api.sandbox.v1.sandbox_pb2 import Comparison
from perilune.grading.comparison import difference, value_difference
from perilune.testgen.settings import needed

Same = Callable[[bytes, bytes], bool]


@dataclass(frozen=True)
class Agreement:
    """The output that most submissions gave on one input, and which of them gave it."""

    expected: bytes
    agrees: tuple[bool, ...]

    @property
    def num(self) -> int:
        """Returns how many submissions agree."""
        return sum(self.agrees)


def same_by(comparison: Comparison) -> Same:
    """Tests whether a second output is right where the first is expected, as the sandbox compares them."""
    if comparison.kind == Comparison.KIND_JSON:
        return lambda expected, actual: _same_value(comparison, expected, actual)
    return lambda expected, actual: difference(comparison, expected, actual) is None


def _same_value(comparison: Comparison, expected: bytes, actual: bytes) -> bool:
    try:
        return value_difference(comparison, json.loads(expected), json.loads(actual)) is None
    except (ValueError, RecursionError):  # what a program printed may be no JSON
        return False


def agreement(outputs: Sequence[bytes | None], same: Same) -> Agreement:
    """The output that most submissions agree with; of equals, the first. None stands for no output.

    >>> agreement([b"1", None, b"2", b"2 "], lambda a, b: a.split() == b.split())
    Agreement(expected=b'2', agrees=(False, False, True, True))
    """
    best = Agreement(b"", (False,) * len(outputs))
    for candidate in dict.fromkeys(output for output in outputs if output is not None):
        found = Agreement(candidate, tuple(output is not None and same(candidate, output) for output in outputs))
        best = found if found.num > best.num else best
    return best


def is_valid(found: Agreement, share: float) -> bool:
    """True if so many submissions agree: 7 of 10 at 0.7. An output that is not equal to itself (NaN) never is valid.

    >>> [is_valid(Agreement(b"", (True,) * n + (False,) * (10 - n)), 0.7) for n in (7, 6)]
    [True, False]
    """
    return found.num >= max(1, needed(share, len(found.agrees)))


def passed_all(valid: Sequence[Agreement], num_submissions: int) -> list[bool]:
    """For each submission, whether it passes every valid case."""
    return [all(case.agrees[at] for case in valid) for at in range(num_submissions)]


def is_kept(passed: Sequence[bool], share: float) -> bool:
    """True if so many submissions pass all valid cases: 9 of 10 at 0.9.

    >>> is_kept([True] * 9 + [False], 0.9), is_kept([True] * 8 + [False] * 2, 0.9)
    (True, False)
    """
    return bool(passed) and sum(passed) >= needed(share, len(passed))


@dataclass(frozen=True)
class Rate:
    """A count of a count: of right submissions those that pass (TPR), of wrong ones those that fail (TNR)."""

    num: int = 0
    total: int = 0

    def __add__(self, other: Rate) -> Rate:
        """Counts both."""
        return Rate(self.num + other.num, self.total + other.total)

    @property
    def share(self) -> float | None:
        """The rate; None where nothing was counted.

        >>> Rate(49, 50).share, Rate().share
        (0.98, None)
        """
        return self.num / self.total if self.total else None


def tpr(passed: Sequence[bool]) -> Rate:
    """Of right submissions, those that pass."""
    return Rate(sum(passed), len(passed))


def tnr(passed: Sequence[bool]) -> Rate:
    """Of wrong submissions, those that fail."""
    return Rate(len(passed) - sum(passed), len(passed))
