"""Curves in a terminal, from block characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def shrink(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: means of neighbours where there are more."""
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [fmean(values[start:end]) for start, end in pairwise(edges)]


def on_axis(numbers: Sequence[int], values: Sequence[float], total: int, width: int) -> list[float]:
    """One value a column, on an axis of `width` columns for numbers 0 to `total`, as far as the numbers go.

    A column shows the mean of its values, or where it has none what the columns before it showed last.

    >>> on_axis([0, 2], [1.0, 5.0], total=4, width=4)
    [1.0, 1.0, 5.0]
    """
    of_column: dict[int, list[float]] = {}
    for number, value in zip(numbers, values, strict=True):
        of_column.setdefault(min(width - 1, number * width // max(1, total)), []).append(value)
    columns: list[float] = []
    for column in range(min(of_column, default=0), max(of_column, default=-1) + 1):
        columns.append(fmean(of_column[column]) if column in of_column else columns[-1])
    return columns


def area(
    values: Sequence[float], width: int, height: int = 1, low: float | None = None, high: float | None = None
) -> list[str]:
    """A filled curve, top row first; the lowest value still shows as a sliver. No rows for no values.

    Args:
        values: in order of time, all finite.
        width: columns at most; fewer values take fewer columns.
        height: rows.
        low, high: what the bottom and the top stand for; the smallest and largest value, if not given.

    >>> area([0, 1, 2], width=10)
    ['▁▅█']
    """
    if not values:
        return []
    columns = shrink(values, width)
    bottom = min(columns) if low is None else low
    top = max(columns) if high is None else high
    steps = 8 * height - 1
    shares = [(value - bottom) / (top - bottom) if top > bottom else 0.5 for value in columns]
    filled = [1 + round(steps * min(1.0, max(0.0, share))) for share in shares]
    return [
        "".join(_EIGHTHS[min(8, max(0, eighths - 8 * row))] for eighths in filled) for row in reversed(range(height))
    ]


def sparkline(values: Sequence[float], width: int, low: float | None = None, high: float | None = None) -> str:
    """A curve one row high; empty for no values."""
    return "".join(area(values, width, 1, low, high))
