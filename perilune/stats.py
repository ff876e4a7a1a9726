"""The little statistics that reports need, and numbers that JSON can write."""

from __future__ import annotations

import math
from typing import Any

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def finite(value: Any) -> Any:
    """Copies a document with None for every number that JSON cannot write: NaN and the infinities.

    >>> finite({"loss": float("nan"), "reward": [0.5]})
    {'loss': None, 'reward': [0.5]}
    """
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: finite(item) for key, item in value.items()}
        case list():
            return [finite(item) for item in value]
    return value


def wilson_interval(num_correct: int, num_problems: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927); honest near 0 and 1, where the normal one is not.

    >>> wilson_interval(0, 0)
    (0.0, 1.0)
    """
    if num_problems == 0:
        return 0.0, 1.0
    share, z2 = num_correct / num_problems, Z_95 * Z_95
    centre = share + z2 / (2 * num_problems)
    spread = Z_95 * math.sqrt(share * (1 - share) / num_problems + z2 / (4 * num_problems**2))
    scale = 1 + z2 / num_problems
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
