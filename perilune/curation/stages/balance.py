"""Shares of a set that are to have certain labels."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.workspace import Decision, Row, Survivors
from perilune.errors import InvalidInputError
from perilune.recipe import NonNegativeInt, Share

Shares = dict[str, Share] | Literal["equal"]
WITHOUT = "(none)"


class Balance(Stage):
    """`[balance]`: draws a set whose labels have stated shares, such as of disciplines and of bands of difficulty."""

    title: ClassVar[str] = "Balance"
    # For each label the shares of its values, or "equal". A value "0.2..0.5" stands for numbers from 0.2 to below 0.5,
    # its upper bound included at 1. What is left of the whole is for values that are not named.
    targets: dict[str, Shares] = {}
    num_prompts: NonNegativeInt = 0  # to draw; 0: as many as the targets leave, but at least `min_kept`
    min_kept: Annotated[float, Field(ge=0, le=1)] = 0.5  # of the prompts, where a value is too rare for its share
    seed: NonNegativeInt = 0

    @field_validator("targets")
    @classmethod
    def _sums_to_one(cls, targets: dict[str, Shares]) -> dict[str, Shares]:
        for label, shares in targets.items():
            if shares != "equal" and not 0 < sum(shares.values()) <= 1 + 1e-9:
                raise ValueError(f"the shares of {label} sum to {sum(shares.values()):g}, and must to 1 or less")
        return targets

    def off(self) -> str:
        """Off without targets."""
        given = self.targets or self.num_prompts
        return super().off() or ("" if given else "no targets are given: name them under [balance.targets]")

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes rows of values that have more than their share, in an order that the seed and the texts fix."""
        ordered = sorted(rows, key=lambda row: hashlib.sha256(f"{self.seed} {row.question}".encode()).digest())
        values = {label: [value_of(row, label, shares) for row in ordered] for label, shares in self.targets.items()}
        shares = {label: shares_of(values[label], self.targets[label], label) for label in self.targets}
        size = self.num_prompts or size_of(values, shares, len(ordered), self.min_kept)
        quotas = {
            label: {value: math.ceil(size * share) for value, share in each.items()} for label, each in shares.items()
        }
        taken: dict[str, Counter[str]] = {label: Counter() for label in self.targets}
        num_taken = 0
        for place, row in enumerate(ordered):
            mine = {label: values[label][place] for label in self.targets}
            full = next((label for label, value in mine.items() if taken[label][value] >= quotas[label][value]), None)
            if full is None and num_taken < size:
                num_taken += 1
                for label, value in mine.items():
                    taken[label][value] += 1
            else:
                seen = f"{mine[full]} has its share of {full}" if full else f"{size:,} prompts are drawn"
                yield Decision(row.id, "over its share" if full else "beyond the number", seen)
        tools.facts["balance"] = [
            {"label": label, "value": value, "target": share, "reached": taken[label][value] / max(num_taken, 1),
             "num_before": values[label].count(value), "num_after": taken[label][value]}
            for label, each in shares.items() for value, share in each.items()
        ]  # fmt: skip


def value_of(row: Row, label: str, shares: Shares) -> str:
    """A row's value under a label, or the band that its number is in."""
    value = row.labels.get(label, WITHOUT)
    bands = [each for each in shares if ".." in each] if shares != "equal" else []
    try:
        return next((band for band in bands if _is_in(float(value), band)), value)
    except ValueError:  # no number
        return value


def _is_in(number: float, band: str) -> bool:
    low, _, high = band.partition("..")
    return float(low or "-inf") <= number < float(high or "inf") or number == float(high or "inf") == 1


def shares_of(values: Sequence[str], shares: Shares, label: str) -> dict[str, float]:
    """The share that each value is to have. InvalidInputError if no row has a value that is named."""
    counted = Counter(values)
    if shares == "equal":
        return dict.fromkeys(sorted(counted), 1 / len(counted)) if counted else {}
    if counted and not counted.keys() & shares.keys():
        found = ", ".join(value for value, _ in counted.most_common(8))
        raise InvalidInputError(f"balance.targets.{label} names values that no prompt has; there are: {found}")
    rest = {value: number for value, number in counted.items() if value not in shares}
    left = max(0.0, 1 - sum(shares.values()))
    return {**shares, **{value: left * number / sum(rest.values()) for value, number in sorted(rest.items())}}


def size_of(
    values: Mapping[str, Sequence[str]], shares: Mapping[str, Mapping[str, float]], num_rows: int, min_kept: float
) -> int:
    """The largest set in which each value that occurs can have its share, or the least that is to be kept."""
    size = float(num_rows)
    for label, each in shares.items():
        counted = Counter(values[label])
        size = min([size, *(counted[value] / share for value, share in each.items() if share and counted[value])])
    return max(int(size), math.ceil(min_kept * num_rows))
