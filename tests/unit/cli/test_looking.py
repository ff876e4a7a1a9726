"""`recipe check --deep`: prompts as the model reads them, and what the graders say to the reference itself."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from perilune.cli import looking
from perilune.recipe import check_recipe, load_recipe, toml
from tests.unit.test_preflight import SEARCH, graders

EXACT = {"name": "exact", "options": {"marker": "answer:", "unordered": True}}


def shown(**changes: Any) -> str:
    out = io.StringIO()
    looking.show(check_recipe(SEARCH | {"reward": graders(EXACT)} | changes), out)
    return out.getvalue()


def test_three_prompts_with_their_tokens_and_a_graded_reference(tmp_path: Path) -> None:
    text = shown()
    assert [line.split(",")[0] for line in text.splitlines() if line.startswith("# prompt ")] == [
        "# prompt 0",
        "# prompt 1",
        "# prompt 2",
    ]
    assert "#   <bos> which two of " in text
    assert "#   tokens: <bos> | which | two | of | " in text
    assert "# 200 prompts: 12 to 12 tokens" in text
    assert "#   exact: 1 (weight 1) answer: " in text
    assert "warning" not in text
    path = tmp_path / "recipe.toml"
    path.write_text(toml.dumps(SEARCH) + text)
    assert load_recipe(path) == check_recipe(SEARCH)


def test_a_reference_that_its_own_grader_does_not_take_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert "# warning: json does not find the reference itself right: json: " in shown(reward=graders({"name": "json"}))
    assert "perilune: warning: json does not find" in capsys.readouterr().err
    assert "warning" not in shown(reward=graders(EXACT, {"name": "format", "options": {"tags": "think"}}))


def test_what_cannot_be_tried_is_said() -> None:
    assert "# code is not tried: no answer can be made for it" in shown(reward=graders({"name": "code"}))


def test_a_grader_of_ones_own_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "graders.py"
    file.write_text("def mine(response: str, share: str) -> float:\n    return float(share)\n")
    own = {"name": "mine", "plugin": f"{file}:mine", "options": {"share": 1}}
    assert "#   mine: 1 (weight 1)" in shown(reward=graders(own))


def test_prompts_that_do_not_fit_are_counted_and_odd_characters_stay_in_comments(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    questions = ["which two ?", "which " * 60, "which " * 200, "make\x00\u2028 two"]
    file.write_text("\n".join(json.dumps({"question": q, "answer": "4\n6"}) for q in [*questions, "held out"]))
    text = shown(prompts={"source": "jsonl", "path": str(file), "num_heldout": 1})
    assert "# warning: 1 of 4 prompts cannot be read by the model, such as: prompt " in text
    assert "# warning: 1 of 4 prompts leave less than rollout.max_tokens = 72 of the model's context of 128" in text
    path = tmp_path / "recipe.toml"
    path.write_text(toml.dumps(SEARCH) + text)
    assert load_recipe(path)
