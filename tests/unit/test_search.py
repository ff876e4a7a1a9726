"""Traces of the search task: with doubt and without, to the end or not."""

from __future__ import annotations

from random import Random

from perilune.tasks import search

PROBLEM = search.Problem((9, 15, 4), 19, (15, 4))
FIRST, SECOND, ENDING = "9 + 15 = 24 high", "9 + 4 = 13 low", "15 + 4 = 19 yes answer: 15 4"


def traces(**options: float | bool) -> set[str]:
    return {search.trace(PROBLEM, Random(seed), **options) for seed in range(300)}  # type: ignore[arg-type]


def test_a_trace_that_never_gives_up_tries_all_before_the_answer() -> None:
    assert traces(gives_up=False) == {f"{FIRST} {SECOND} {ENDING}"}
    assert f"{FIRST} answer: none" in traces()


def test_doubt_repeats_what_failed_at_most_twice_and_never_the_answer() -> None:
    found = traces(gives_up=False, doubt=0.5)
    expected = {" ".join([*[FIRST] * first, *[SECOND] * second, ENDING]) for first in (1, 2, 3) for second in (1, 2, 3)}
    assert found == expected
