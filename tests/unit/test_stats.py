"""The interval of a proportion, against published and hand-computed values."""

from __future__ import annotations

import json

import pytest

from perilune.stats import finite, wilson_interval


@pytest.mark.parametrize(
    ("num_correct", "num_problems", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_the_published_one(num_correct: int, num_problems: int, low: float, high: float) -> None:
    assert wilson_interval(num_correct, num_problems) == pytest.approx((low, high), abs=5e-5)


def test_right_and_wrong_are_symmetric() -> None:
    low, high = wilson_interval(70, 500)
    assert wilson_interval(430, 500) == pytest.approx((1 - high, 1 - low))


def test_the_interval_never_leaves_the_unit_interval() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for num_problems in (1, 7, 500):
        assert 0 <= wilson_interval(0, num_problems)[0] < 1e-15
        assert 1 - 1e-15 < wilson_interval(num_problems, num_problems)[1] <= 1


def test_four_times_the_problems_halve_the_interval() -> None:
    def width(n: int) -> float:
        low, high = wilson_interval(n // 2, n)
        return high - low

    assert width(4000) / width(1000) == pytest.approx(0.5, rel=0.01)


def test_what_json_cannot_write_is_null() -> None:
    document = finite({"a": [float("nan"), 1.5, {"b": float("-inf")}], "c": "NaN", "d": 3})
    assert json.dumps(document, allow_nan=False) == '{"a": [null, 1.5, {"b": null}], "c": "NaN", "d": 3}'
