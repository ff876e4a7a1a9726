"""A submitter reads no file of the master's through a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perilune.errors import InvalidInputError
from perilune.recipe import check_recipe
from services.master.folders import check_folders

RECIPE: dict[str, Any] = {
    "name": "t",
    "model": {"path": "org/name-of-a-hub"},
    "prompts": {"source": "jsonl", "path": "rows.jsonl"},
    "reward": {"graders": [{"name": "exact"}]},
    "trainer": {"num_iterations": 1},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Folders `data`, which is allowed, `home` and `here`; what lies in `secret` is the master's."""
    for name in ("data/deep", "home/run/checkpoints/v1", "home/logs/x", "here", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret" / "token").write_text("t")
    (tmp_path / "here" / "token").write_text("t")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data" / "circle")
    return tmp_path


def check(place: Path, **changes: Any) -> None:
    recipe = check_recipe(RECIPE | changes)
    check_folders(recipe, [place / "data"], place / "home", place / "here")


def prompts(path: object) -> dict[str, Any]:
    return {"source": "files" if isinstance(path, list) else "jsonl", "path": path}


@pytest.mark.parametrize(
    "path", ["{}/data/rows.jsonl", "{}/data/deep/../rows.jsonl", "../data/rows.jsonl", "rows.jsonl"]
)
def test_what_lies_in_an_allowed_folder_may_be_named(place: Path, path: str) -> None:
    check(place, prompts=prompts(path.format(place)), model={"path": str(place / "home/run/checkpoints/v1")})


@pytest.mark.parametrize(
    "path",
    [
        *("{}/secret/token", "{}/secret/none", "{}/data/../secret/token", "../secret/token", "{}/data/link/token"),
        *("/etc/passwd", "/proc/self/environ", "~/.ssh/id_rsa", "~nobody-at-all/x", "{}/data-of-others", "/", "token"),
        *("{}/home/perilune.db", "{}/home/audit.jsonl", "{}/home/logs/x", "{}/home/run/../perilune.db"),
        *("{}/data/circle", "{}/data/\0", "file:///etc/passwd"),
    ],
)
def test_any_other_file_is_refused_whether_it_exists_or_not(place: Path, path: str) -> None:
    text = path.format(place)
    for changes in (
        {"prompts": prompts(text)},
        {"prompts": prompts(str(place / "data/rows.jsonl")) | {"heldout_path": text}},
        {"model": {"path": "org/name", "chat_template": text}},
        {"model": {"path": text}},
        {"stages": [{"type": "sft", "path": text}]},
        {"evaluate": [{"task": f"own={text}"}]},
    ):
        with pytest.raises(InvalidInputError, match="PERILUNE_DATA_FOLDERS"):
            check(place, **changes)


def test_a_pattern_counts_by_what_lies_before_it(place: Path) -> None:
    with pytest.raises(InvalidInputError, match="PERILUNE_DATA_FOLDERS"):
        check(place, prompts=prompts(str(place / "sec*" / "token")))
    check(place, prompts=prompts(str(place / "data" / "*.jsonl")))


def test_a_template_that_is_written_out_is_no_file(place: Path) -> None:
    for template in ("{{ messages }}/../{% if x %}\n{% endif %}", "/../{{ messages }}"):
        check(place, model={"path": "org/name", "chat_template": template}, rollout={"stop": ["/", "~", "../"]})
