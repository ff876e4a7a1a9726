"""Rows of every form as examples; what is none is named by its file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from perilune.data.examples import Example, Turn, examples_of, read_examples
from perilune.errors import InvalidInputError
from perilune.recipe import SftStage

USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
TALK = (Turn([USER], "b"),)


def table(path: Path, **keys: Any) -> SftStage:
    return SftStage.model_validate({"type": "sft", "path": str(path), **keys})


def of_row(tmp_path: Path, row: Any, **keys: Any) -> Example:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (example,) = read_examples(table(tmp_path / "rows.jsonl", **keys))
    return example


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [USER, ASSISTANT]}, TALK),
        ({"messages": json.dumps([USER, ASSISTANT])}, TALK),
        ({"messages": [{**USER, "content": [{"type": "text", "text": "a"}]}, {**ASSISTANT, "name": None}]}, TALK),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, TALK),
        ({"prompt": [USER], "completion": [ASSISTANT]}, TALK),
        ({"question": "a", "response": "b", "messages": None}, TALK),
        ({"prompt": "a ", "completion": "b"}, (Turn("a ", "b"),)),
        ({"text": "a b"}, (Turn("", "a b"),)),
    ],
)
def test_rows_of_every_form(tmp_path: Path, row: Any, expected: Example) -> None:
    assert of_row(tmp_path, row) == expected


def test_a_completion_alone_is_learnt_whatever_its_prompt_holds(tmp_path: Path) -> None:
    prompt = [USER, {"role": "assistant", "content": "c"}, USER]
    (turn,) = of_row(tmp_path, {"prompt": prompt, "completion": [ASSISTANT]})
    assert turn == Turn(prompt, "b")


def test_tools_and_their_calls_are_read_with_numbers_as_numbers(tmp_path: Path) -> None:
    schema = {"type": "function", "function": {"name": "f", "parameters": {"max": 2}}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1, "y": 2.5}'}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"role": "tool", "tool_call_id": "1", "content": ""}
    first, second = of_row(tmp_path, {"messages": [USER, said, answer, ASSISTANT], "tools": [schema]})
    assert first.tools == second.tools == [schema]
    assert first.response == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": 2.5}}}],
    }
    assert second == Turn([USER, first.response, answer], "b", [schema])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{**USER, "content": [{"type": "image_url", "image_url": "x"}]}, ASSISTANT]}, "'image_url'"),
        ({"messages": [USER, ASSISTANT], "images": ["x.png"]}, "'images': only text is learnt from"),
        ({"messages": [{**USER, "mood": "good"}, ASSISTANT]}, r"'messages\[0\].mood' would be lost"),
        ({"messages": [USER, {**ASSISTANT, "tool_calls": [{"x": 1}]}]}, r"tool_calls\[0\]' must be a call"),
        ({"messages": [USER, ASSISTANT], "tools": ["f"]}, "'tools' must be a list of JSON schemas"),
        ({"prompt": "a"}, "has no 'completion'"),
        ({"other": 1}, "has no 'messages': a row has"),
        ({"messages": []}, "has no message of the assistant"),
    ],
)
def test_what_is_no_example_is_named(tmp_path: Path, row: Any, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"rows\.jsonl:1.*{expected}"):
        of_row(tmp_path, row)


def test_every_format_says_the_same(tmp_path: Path) -> None:
    rows = [{"messages": [USER, ASSISTANT]}] * 2
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "b")
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(tmp_path / "c")
    (tmp_path / "d.json").write_text(json.dumps(rows))
    with (tmp_path / "e.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["messages"], *([json.dumps(row["messages"])] for row in rows)])
    for name in ("a.parquet", "b", "c", "d.json", "e.csv"):
        assert read_examples(table(tmp_path / name)) == [TALK, TALK], name
    with pytest.raises(InvalidInputError, match=r"is a folder, and none that `Dataset\.save_to_disk` wrote"):
        read_examples(table(tmp_path))


def test_broken_rows_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\nnonsense\n{"text": "\xff"}\n{"text": "b"}\n{"text": ""}\n')
    found = list(examples_of(table(path), [str(path)]))
    assert [where.rpartition(":")[2] for where, each in found if isinstance(each, InvalidInputError)] == ["2", "3", "5"]
    assert read_examples(table(path, broken="drop")) == [(Turn("", "a"),), (Turn("", "b"),)]
    with pytest.raises(InvalidInputError, match=r"rows\.jsonl:2 is no JSON"):
        read_examples(table(path))
