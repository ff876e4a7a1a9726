"""Effects of paired runs: the differences of two variants, seed by seed, their median with an interval, and a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

NUM_RESAMPLES = 10_000
MIN_SEEDS = 3  # of which something is said
LITTLE = {"area": 0.02, "final": 0.02, "gain": 0.02, "tokens": 1.0, "growth": 1.0}
"""Says what counts as no difference, by measure: shares of accuracy, and tokens."""

Verdict = Literal["reproduced in kind", "not at this scale", "opposite", "not run yet"]


@dataclass(frozen=True)
class Effect:
    """The difference of two variants."""

    median: float
    low: float  # of the 95 % interval, by a percentile bootstrap over seeds
    high: float
    p_value: float  # of the exact paired sign-flip test: how often random signs give a mean difference as large
    num_seeds: int


def effect_of(differences: Sequence[float]) -> Effect:
    """The effect, from one difference a seed. Of fewer than two there is no interval: it is the value itself."""
    values = np.array(differences, float)
    if len(values) < 2:
        return Effect(float(values[0]), float(values[0]), float(values[0]), 1.0, len(values))
    low, high = interval_of(values)
    tested = stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf if len(values) <= 12 else NUM_RESAMPLES,
        rng=0,
    )
    return Effect(float(np.median(values)), low, high, float(tested.pvalue), len(values))


def interval_of(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the median. Of few seeds it is at most their range."""
    values = np.array(values, float)
    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.min()), float(values.max())
    resampled = np.random.default_rng(0).choice(values, (NUM_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return float(low), float(high)


def verdict_of(effect: Effect | None, expected: Literal["more", "less", "same"], measure: str) -> Verdict:
    """Returns what an effect says of a claim.

    A difference is there where the interval is clear of zero and the median is more than little. `same` is reproduced
    where the whole interval is within twice what counts as little; where it is neither clear nor narrow, nothing was
    shown.
    """
    if effect is None or effect.num_seeds < MIN_SEEDS:
        return "not run yet"
    little = LITTLE[measure]
    is_more = effect.low > 0 and effect.median > little
    is_less = effect.high < 0 and effect.median < -little
    if expected == "same":
        if is_more or is_less:
            return "opposite"
        return "reproduced in kind" if max(abs(effect.low), abs(effect.high)) <= 2 * little else "not at this scale"
    if is_more if expected == "more" else is_less:
        return "reproduced in kind"
    return "opposite" if (is_less if expected == "more" else is_more) else "not at this scale"
