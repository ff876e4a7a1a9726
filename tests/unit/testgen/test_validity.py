"""Which case is valid, and which problem stays."""

from __future__ import annotations

from perilune.testgen.settings import needed
from perilune.testgen.special_judge import reason_in
from perilune.testgen.validity import Agreement, Rate, agreement, is_kept, is_valid, passed_all, tnr, tpr


def test_seven_of_ten_and_nine_of_ten() -> None:
    assert (needed(0.7, 10), needed(0.9, 10), needed(0.7, 5)) == (7, 9, 4)
    assert [is_valid(Agreement(b"", (True,) * n + (False,) * (10 - n)), 0.7) for n in (7, 6)] == [True, False]
    assert [is_kept([True] * n + [False] * (10 - n), 0.9) for n in (9, 8)] == [True, False]


def test_the_output_of_most_is_expected_and_who_fails_is_seen() -> None:
    found = agreement([b"1", None, b"2", b"2"], lambda a, b: a == b)
    assert found == Agreement(b"2", (False, False, True, True))
    assert passed_all([found, Agreement(b"", (True, True, False, True))], 4) == [False, False, False, True]
    assert (tpr([True, False]), tnr([True, False, False])) == (Rate(1, 2), Rate(2, 3))


def test_statements_with_several_answers() -> None:
    assert reason_in("If there are several paths, print any of them.")
    assert not reason_in("Print the sum of any two numbers.")
