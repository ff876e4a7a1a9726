"""Reports as one HTML file each, which needs no network: the frame they share, and bars.

A report is a template of its own package that extends `base.html`. Beside what it is given it may call `track`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perilune.errors import MissingDependencyError

NUM_BINS = 30


def render(package: str, template: str, **values: Any) -> str:
    """A package's template with these values. MissingDependencyError: jinja2 is not installed."""
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader
        from markupsafe import Markup
    except ImportError as error:
        raise MissingDependencyError(f"the report needs `pip install jinja2`: {error}") from error

    def track(whole: int, *parts: tuple[str, int]) -> Markup:
        """A bar whose parts, each a class and a number, are shares of a whole."""
        pieces = "".join(
            f'<div class="{name}" style="width: {100 * number / max(whole, 1):.2f}%"></div>' for name, number in parts
        )
        return Markup(f'<div class="track">{pieces}</div>')

    own, frame = (PackageLoader(each, "") for each in (package, "perilune.pages"))
    page = Environment(loader=ChoiceLoader([own, frame]), autoescape=True).get_template(template)
    return page.render(track=track, **values)


@dataclass(frozen=True)
class Bin:
    """One bar of a histogram."""

    low: int
    high: int
    number: int
    share: float  # of the highest bar, in percent


@dataclass(frozen=True)
class Histogram:
    """Describes how a number is spread."""

    title: str
    unit: str
    bins: Sequence[Bin]

    @property
    def most(self) -> int:
        """The highest bar."""
        return max(each.number for each in self.bins)


def bins(values: Sequence[int]) -> list[Bin]:
    """Values in at most NUM_BINS bins of one width.

    >>> [(each.low, each.high, each.number) for each in bins([1, 1, 2, 4])]
    [(1, 1, 2), (2, 2, 1), (3, 3, 0), (4, 4, 1)]
    """
    low, high = min(values), max(values)
    width = max(1, math.ceil((high - low + 1) / NUM_BINS))
    counted = Counter((value - low) // width for value in values)
    most = max(counted.values())
    num_bins = (high - low) // width + 1
    return [
        Bin(low + place * width, low + (place + 1) * width - 1, counted[place], 100 * counted[place] / most)
        for place in range(num_bins)
    ]
