"""Curves of block characters, drawn by hand."""

from __future__ import annotations

import pytest

from perilune.cli.textplot import area, on_axis, shrink, sparkline


def test_a_sparkline_goes_from_the_lowest_block_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], width=8) == "▁▂▃▄▅▆▇█"


def test_fixed_bounds_keep_a_small_change_small() -> None:
    assert sparkline([0.5, 0.52], width=8, low=0.0, high=1.0) == "▅▅"
    assert sparkline([-1.0, 2.0], width=8, low=0.0, high=1.0) == "▁█"


def test_a_flat_curve_is_drawn_and_an_empty_one_is_not() -> None:
    assert sparkline([3.0, 3.0], width=8) == "▅▅"
    assert sparkline([], width=8) == ""


def test_an_area_fills_from_the_bottom() -> None:
    assert area([0, 15], width=4, height=2) == [" █", "▁█"]
    assert area([0, 7, 8], width=4, height=2, low=0, high=15) == ["  ▁", "▁██"]


def test_many_values_become_means_of_neighbours() -> None:
    assert shrink([1, 3, 5, 7], width=2) == [2, 6]
    assert shrink([1, 2], width=5) == [1, 2]


@pytest.mark.parametrize(
    ("numbers", "values", "total", "width", "columns"),
    [
        ([0, 10, 20], [1.0, 2.0, 3.0], 40, 8, [1, 1, 2, 2, 3]),  # wider than the values: the last one is held
        ([1, 2, 3, 4], [1.0, 3.0, 5.0, 7.0], 8, 4, [1, 4, 7]),  # narrower: means
        ([5], [1.0], 5, 4, [1]),  # the end of the axis is its last column
        ([], [], 5, 4, []),
        ([0], [1.0], 0, 4, [1]),  # a run without iterations
    ],
)
def test_curves_share_the_axis_of_the_iterations(
    numbers: list[int], values: list[float], total: int, width: int, columns: list[float]
) -> None:
    assert on_axis(numbers, values, total, width) == columns
