"""Figures of evaluations, against values computed by hand."""

from __future__ import annotations

import math

import pytest

from perilune.evaluation.metrics import (
    Response,
    accuracy_by_tokens,
    avg_at_n,
    budgets_of,
    figures_of,
    maj_at_n,
    mean_figure,
    pass_at_k,
)


def responses(*values: float) -> list[Response]:
    return [Response(value, 10 * (number + 1), f"answer {number}") for number, value in enumerate(values)]


def test_the_mean_over_problems_weighs_each_problem_the_same() -> None:
    figure = avg_at_n([responses(1, 0, 0, 1), responses(1, 1)])
    assert (figure.name, figure.value) == ("avg@4", 0.75)
    assert figure.low == pytest.approx(0.75 - 1.959963984540054 * 0.25)  # s = 0.35355, by the root of two problems
    assert figure.high == 1.0  # 1.24, and no share is above 1


def test_one_response_a_problem_has_wilsons_interval() -> None:
    figure = avg_at_n([responses(1)] * 8 + [responses(0)] * 2)
    assert figure.name == "pass@1"
    assert (figure.low, figure.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


@pytest.mark.parametrize(
    ("right", "k", "expected"),
    [(0, 2, 0.0), (1, 1, 0.25), (1, 2, 0.5), (2, 2, 1 - 1 / 6), (3, 2, 1.0), (4, 4, 1.0), (1, 4, 1.0)],
)
def test_pass_at_k_of_four_responses(right: int, k: int, expected: float) -> None:
    figure = pass_at_k([responses(*[1] * right, *[0] * (4 - right))], k)
    assert figure
    assert figure.value == pytest.approx(expected)


def test_pass_at_k_needs_k_responses_to_every_problem() -> None:
    assert pass_at_k([responses(1, 1), responses(1)], 2) is None


def test_partial_credit_is_no_pass() -> None:
    figure = pass_at_k([responses(0.9, 0.5)], 2)
    assert figure
    assert figure.value == 0.0


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([("4", 1), ("4", 1), ("5", 0)], 1.0),
        ([("4", 1), ("5", 0), ("5", 0)], 0.0),
        ([("4", 1), ("5", 0)], 0.5),  # a tie: either may be taken
        ([("", 0), ("", 0), ("4", 1)], 1.0),  # no answer is no vote
        ([("", 0), ("", 0)], 0.0),
    ],
)
def test_the_majority_decides(answers: list[tuple[str, float]], expected: float) -> None:
    assert maj_at_n([[Response(value, 1, answer) for answer, value in answers]]).value == expected


def test_accuracy_against_tokens_counts_what_is_too_long_as_wrong() -> None:
    problems = [[Response(1, 10), Response(1, 30)], [Response(0, 10), Response(1, 20)]]
    assert accuracy_by_tokens(problems, [5, 10, 20, 30]) == [(5, 0.0), (10, 0.25), (20, 0.5), (30, 0.75)]
    assert budgets_of(problems, 4) == [10, 20, 30]


def test_all_figures_of_an_evaluation() -> None:
    figures = {figure.name: figure.value for figure in figures_of([responses(1, 0), responses(0, 0), []], votes=True)}
    assert figures == {
        "avg@2": 0.25,
        "pass@2": 0.5,
        "maj@2": 0.25,
        "mean_tokens": 15.0,
        "within_10_tokens": 0.25,
        "within_20_tokens": 0.25,
    }
    assert figures_of([[], []]) == []


def test_one_value_between_nought_and_one_has_no_interval() -> None:
    figure = mean_figure("score", [0.5])
    assert (figure.low, figure.high) == (None, None)
    assert all(math.isfinite(f.value) for f in figures_of([responses(0.5)]))
