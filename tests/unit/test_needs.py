"""What a run needs is asked of its recipe; a custom grader is a function of a file, or an address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perilune.errors import InvalidInputError
from perilune.grading.plugin import load_function
from perilune.local.cluster import plugins_of_user
from perilune.recipe import check_recipe
from perilune.recipe.needs import Needs, needs
from tests.unit.test_preflight import graders, mistakes
from tests.unit.test_recipe import JSONL, minimal


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, Needs()),
        ({"reward": graders({"name": "exact"}, {"name": "code"})}, Needs(sandbox=True)),
        ({"rollout": {"environment": {"type": "sandbox"}}}, Needs(sandbox=True)),
        ({"rollout": {"environment": {"type": "calculator"}}}, Needs()),
        ({"prompts": JSONL | {"environment": "env", "environments": ["guess", "sandbox"]}}, Needs(sandbox=True)),
        ({"prompts": JSONL | {"environment": "env", "environments": ["guess"]}}, Needs()),
        ({"reward": graders({"name": "mine", "plugin": "h:1"})}, Needs(plugins={"mine": "h:1"})),
    ],
)
def test_a_run_needs_what_its_recipe_uses(changes: dict[str, Any], needed: Needs) -> None:
    assert needs(check_recipe(minimal(**changes))) == needed


GRADERS = """
from helper import SHARE
def mine(response: str, word: str = "x") -> float:
    return SHARE * (word in response)
"""


def test_a_function_of_a_file_is_loaded_with_its_digest_as_version(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("SHARE = 0.5")
    file = tmp_path / "graders.py"
    file.write_text(GRADERS)
    function, version = load_function(f"{file}:mine")
    assert function(response="x") == 0.5
    file.write_text(GRADERS + "\n# changed")
    assert load_function(f"{file}:mine")[1] != version
    for wrong, said in (
        (f"{file}:yours", "no function 'yours'"),
        (f"{tmp_path}/no.py:mine", "cannot read"),
        ("x", "names no"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            load_function(wrong)


def test_a_plug_in_of_a_recipe_is_looked_at_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "graders.py"
    file.write_text(GRADERS + "\nraise SystemExit('was run')")
    right = {"name": "mine", "plugin": f"{file}:mine", "options": {"word": "y"}}
    assert mistakes(tmp_path, reward=graders(right)) == []
    assert mistakes(tmp_path, reward=graders({"name": "mine", "plugin": "127.0.0.1:7100"})) == []
    for changed, said in (
        ({"plugin": f"{file}:mien"}, "reward.graders.0.plugin: "),
        ({"plugin": "somewhere"}, "reward.graders.0.plugin: 'somewhere' is neither HOST:PORT nor FILE.py:FUNCTION"),
        ({"name": "exact"}, "reward.graders.0.name: there is a grader 'exact' already"),
        ({"options": {"wrod": "y"}}, "reward.graders.0.options.wrod: "),
    ):
        (line,) = mistakes(tmp_path, reward=graders(right | changed))
        assert line.startswith(said)
    assert mistakes(tmp_path, reward=graders({"name": "theirs"})) != []
    monkeypatch.setenv("PERILUNE_PLUGINS", '{"theirs": "127.0.0.1:7100"}')
    assert mistakes(tmp_path, reward=graders({"name": "theirs"})) == []


@pytest.mark.parametrize("value", ["x", "[]", '{"a": 1}'])
def test_a_wrong_variable_for_plug_ins_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERILUNE_PLUGINS", value)
    with pytest.raises(InvalidInputError, match=r"^PERILUNE_PLUGINS: "):
        plugins_of_user()
