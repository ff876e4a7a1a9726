"""Settings of test generation, with the paper's values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from perilune.errors import InvalidInputError


@dataclass(frozen=True)
class CaseSettings:
    """Describes how many cases are made, and what makes a case valid and keeps a problem. Shares are of the
    submissions used."""

    num_cases: int = 50
    min_valid: int = 40  # valid cases below which a problem is dropped
    num_submissions: int = 10  # known-good ones that make the tests; further ones are held out, and measure them
    min_submissions: int = 5
    agree: float = 0.7  # share of the submissions that agree on a valid case's output
    passing: float = 0.9  # share of the submissions that pass all valid cases of a problem that is kept
    disagreement: float = (
        0.2  # share of cases on which right submissions disagree, from which a special judge is needed
    )
    max_input_bytes: int = 1 << 20
    generator_s: float = 10.0  # CPU time of one run of a generator, a validator or a checker
    time_limit_s: float = 5.0  # CPU time of a submission on one case, where the problem does not say it
    memory_mb: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """InvalidInputError for settings that no problem could meet."""
        for name in ("agree", "passing", "disagreement"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInputError(f"{name} is a share above 0 and up to 1, not {getattr(self, name)}")
        for name in ("num_cases", "min_valid", "num_submissions", "min_submissions", "max_input_bytes", "memory_mb"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("generator_s", "time_limit_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InvalidInputError(f"{name} must be a number of seconds above 0, not {getattr(self, name)}")
        if self.min_valid > self.num_cases:
            raise InvalidInputError(f"{self.min_valid} valid cases cannot come of {self.num_cases}: lower min_valid")
        if self.min_submissions > self.num_submissions:
            raise InvalidInputError(
                f"{self.min_submissions} submissions are wanted and {self.num_submissions} used: lower min_submissions"
            )


def needed(share: float, total: int) -> int:
    """The least number that is this share of a total, in exact arithmetic.

    >>> needed(0.7, 10), needed(0.9, 10), needed(0.7, 5)
    (7, 9, 4)
    """
    return math.ceil(Fraction(str(share)) * total)
