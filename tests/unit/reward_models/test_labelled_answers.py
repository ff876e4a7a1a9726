"""Labelled answers, and the measures of a grader on them, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from perilune.errors import InvalidInputError, NotFoundError
from perilune.grading.labelled_answers import LabelledAnswer, agreement, read_labelled_answers

ROW = '{"question": "q", "reference": "1", "response": "one", "correct": true, "source": "me"}'


def test_rows_are_read_and_further_keys_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    # A line separator inside a text ends no line of the file.
    file.write_text(ROW + '\n\n{"reference": "2", "response": "a\u2028b", "correct": false}\n', encoding="utf-8")
    assert read_labelled_answers(file) == [
        LabelledAnswer(question="q", reference="1", response="one", correct=True),
        LabelledAnswer(reference="2", response="a\u2028b", correct=False),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no labelled answers"),
        (f"{ROW}\n{{", "rows.jsonl:2: the line: "),
        ('{"reference": "1", "response": "1"}', "rows.jsonl:1: correct: field required"),
        ('{"reference": "1", "response": "1", "correct": "yes"}', "rows.jsonl:1: correct: "),
        ('{"reference": 1, "response": "1", "correct": true}', "rows.jsonl:1: reference: "),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError) as raised:
        read_labelled_answers(file)
    assert said in str(raised.value)


def test_a_mark_at_the_start_and_separators_in_texts_are_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('\ufeff{"reference": "1", "response": "a\u2028b\x85c", "correct": true}\r\n', encoding="utf-8")
    assert [row.response for row in read_labelled_answers(file)] == ["a\u2028b\x85c"]


def test_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="cannot read the labelled answers"):
        read_labelled_answers(tmp_path / "none.jsonl")


def test_agreement_by_hand() -> None:
    found = agreement([0.9, 0.8, 0.2, 0.5, None], [True, False, False, True, True])
    assert (found.num_rows, found.num_right, found.num_without) == (5, 2, 1)
    assert (found.num_false_positives, found.num_false_negatives) == (1, 1)
    assert found.accuracy == pytest.approx(2 / 5)
    # (0.1² + 0.8² + 0.2² + 0.5²) / 4
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.04 + 0.25) / 4)
    # Every value in a bin of its own: |0.9 - 1|, |0.8 - 0|, |0.2 - 0|, |0.5 - 1|.
    assert found.calibration_error == pytest.approx((0.1 + 0.8 + 0.2 + 0.5) / 4)


def test_values_of_one_bin_are_taken_together() -> None:
    # Mean value 0.75, share of right answers 3 / 4.
    found = agreement([0.75, 0.75, 0.75, 0.75], [True, True, True, False])
    assert found.calibration_error == pytest.approx(0.0)
    assert found.brier == pytest.approx((3 * 0.0625 + 0.5625) / 4)


def test_without_any_score_there_is_nothing_to_calibrate() -> None:
    found = agreement([None, None], [True, False])
    assert found.accuracy == 0
    assert math.isnan(found.brier)
    assert math.isnan(found.calibration_error)
