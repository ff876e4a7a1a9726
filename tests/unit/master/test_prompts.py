import json
from pathlib import Path

import datasets
import pytest

from perilune.errors import InvalidInputError
from perilune.recipe import HuggingFacePrompts, JsonlPrompts, ReasoningGymPrompts, TaskPrompts
from services.master.prompts import open_prompts


def write(path: Path, rows: list[object]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_a_task_is_endless_and_holds_problems_out() -> None:
    prompts = open_prompts(TaskPrompts(source="task", name="search", num_train=300, num_heldout=50), seed=4)
    train = {prompts.train(index).id for index in range(300)}
    heldout = {prompts.heldout(index).id for index in range(50)}
    assert not train & heldout
    assert prompts.train(7) == open_prompts(TaskPrompts(source="task", name="search"), seed=4).train(7)


def test_jsonl_rows_become_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"q": f"{i}+1?", "a": i + 1, "level": i} for i in range(5)])
    table = JsonlPrompts(
        source="jsonl",
        path=path,
        question="q",
        answer="a",
        labels=["level"],
        num_heldout=2,
        template="Compute {question}",
        system="Be brief.",
    )
    prompts = open_prompts(table, seed=0)
    assert (prompts.num_train, prompts.num_heldout) == (3, 2)
    prompt = prompts.train(1)
    assert [(m.role, m.content) for m in prompt.messages] == [("system", "Be brief."), ("user", "Compute 1+1?")]
    assert (prompt.reference, prompt.labels["level"]) == ("2", "1")


def test_a_conversation_is_taken_as_it_is(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    path = write(tmp_path / "p.jsonl", [{"question": turns, "answer": "x"}] * 2 + [{"question": "y", "answer": "z"}])
    prompts = open_prompts(JsonlPrompts(source="jsonl", path=path, num_heldout=1), seed=0)
    assert [m.content for m in prompts.train(0).messages] == ["a", "b", "c"]


def test_a_question_that_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    rows = [{"question": q, "answer": "1"} for q in ("a", "b", "c", "a")]
    prompts = open_prompts(JsonlPrompts(source="jsonl", path=write(tmp_path / "p.jsonl", rows), num_heldout=1), seed=0)
    assert [prompts.train(i).messages[0].content for i in range(prompts.num_train)] == ["b", "c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"question": "a", "answer": "b"}\n{"question": "a", "anwser": "b"}', "line 2 has no key 'answer'.*'anwser'"),
        ('{"question": "a", "answer": "b"}\nnonsense', "line 2 is no JSON"),
        ("[1, 2]", "line 1 is no JSON object"),
        ('{"question": 5, "answer": "b"}', "line 1: 'question' is neither text nor"),
        ("", "has no prompts"),
        ('{"question": "a", "answer": "b"}', "none are left to train on"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=expected):
        open_prompts(JsonlPrompts(source="jsonl", path=str(path), num_heldout=1), seed=0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read .*nowhere\.jsonl"):
        open_prompts(JsonlPrompts(source="jsonl", path=str(tmp_path / "nowhere.jsonl")), seed=0)


def test_a_saved_hugging_face_dataset_opens(tmp_path: Path) -> None:
    rows = {"question": [f"q{i}" for i in range(6)], "answer": [str(i) for i in range(6)]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    table = HuggingFacePrompts(source="huggingface", dataset=str(tmp_path / "saved"), num_heldout=2)
    prompts = open_prompts(table, seed=0)
    assert (prompts.num_train, prompts.train(3).reference, prompts.heldout(0).reference) == (4, "3", "4")


def test_a_hugging_face_dataset_of_files_opens(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"question": f"q{i}", "answer": str(i)} for i in range(4)])
    table = HuggingFacePrompts(source="huggingface", dataset=str(tmp_path), num_heldout=1)
    assert open_prompts(table, seed=0).num_train == 3


def test_reasoning_gym_makes_problems_and_holds_some_out() -> None:
    table = ReasoningGymPrompts(source="reasoning-gym", name="chain_sum", num_train=40, num_heldout=10)
    prompts = open_prompts(table, seed=1)
    assert (prompts.num_train, prompts.num_heldout) == (40, 10)
    assert not {p.id for p in prompts.train_prompts} & {p.id for p in prompts.heldout_prompts}  # type: ignore[attr-defined]
    assert open_prompts(table, seed=1).train(3) == prompts.train(3)


def test_reasoning_gym_names_the_nearest_dataset() -> None:
    with pytest.raises(InvalidInputError, match="chain_sum"):
        open_prompts(ReasoningGymPrompts(source="reasoning-gym", name="chain_sums"), seed=0)


def test_reasoning_gym_options_are_checked() -> None:
    table = ReasoningGymPrompts(source="reasoning-gym", name="chain_sum", options={"min_turms": 3})
    with pytest.raises(InvalidInputError, match="min_turms"):
        open_prompts(table, seed=0)
