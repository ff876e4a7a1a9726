"""The shortest right answer, and what is rejected for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perilune.data.examples import read_examples
from perilune.data.shortest import Choice, Sample, choose, select
from perilune.errors import AlreadyExistsError, InvalidInputError
from perilune.recipe import DpoStage, SftStage

BEST, NEAR, LONG = Sample("b", True, 10), Sample("n", True, 14), Sample("l", True, 15)
WRONG, SHORT = Sample("w", False, 11), Sample("s", False, 10)


def test_longer_wrong_ones_and_right_ones_that_are_half_as_long_again_are_rejected() -> None:
    assert choose([NEAR, WRONG, LONG, BEST, SHORT]) == Choice(BEST, [WRONG, LONG])
    assert choose([LONG, BEST], longer=2) == Choice(BEST, [])
    assert choose([WRONG, SHORT]) == Choice()


def test_an_answer_that_says_nothing_is_neither_chosen_nor_rejected() -> None:
    assert choose([Sample("", True, 1), Sample(" ", False, 99), BEST, LONG]) == Choice(BEST, [LONG])
    assert choose([Sample("", True, 1)]) == Choice()


def test_what_is_written_is_what_stages_read(tmp_path: Path) -> None:
    samples = [("a", BEST), ("a", LONG), ("a", WRONG), ("b", WRONG), ("c", BEST), ("c", NEAR)]
    rows = [{"question": q, "response": s.response, "correct": s.correct, "num_tokens": s.length} for q, s in samples]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert select(tmp_path / "rows.jsonl", tmp_path / "out") == {
        "num_questions": 3,
        "num_without_right_answer": 1,
        "num_without_pair": 1,
        "num_pairs": 2,
    }
    sft = SftStage(type="sft", path=[str(tmp_path / "out" / "sft.jsonl")])
    assert [(turn.prompt[0]["content"], turn.response) for (turn,) in read_examples(sft)] == [("a", "b"), ("c", "b")]
    dpo = DpoStage(type="dpo", path=[str(tmp_path / "out" / "pairs.jsonl")])
    assert [turn.response for (turn,) in read_examples(dpo)] == ["b", "l", "b", "w"]
    with pytest.raises(AlreadyExistsError):
        select(tmp_path / "rows.jsonl", tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "no samples"),
        ('{"question": "a", "response": "b"}', ":1 has no key 'correct'"),
        ('{"question": "a", "response": "b", "correct": 1}', ":1: 'correct' must be true or false"),
        ('{"question": "a", "response": "b", "correct": true, "num_tokens": -1}', ":1: 'num_tokens' must be a count"),
    ],
)
def test_what_is_no_graded_sample_is_named(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line)
    with pytest.raises(InvalidInputError, match=expected):
        select(tmp_path / "rows.jsonl", tmp_path / "out")
