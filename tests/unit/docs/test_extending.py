"""docs/extending.md, executed as it stands: its files are modules, its rows go into the tables, its asserts hold."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perilune.grading.codetests import FORMATS
from perilune.grading.plugin import load_function, start_grader
from perilune.objectives.shaping import SHAPING
from perilune.recipe import check_recipe
from perilune.tasks import TASKS
from services.master.prompts import SOURCES
from services.master.samplers import SAMPLERS
from services.reward.graders import GRADERS, find_grader
from services.reward.graders.grader import GradingSample
from services.reward.plugins import plugged_in
from services.rollout.engines import ENGINES
from services.rollout.environments import ENVIRONMENTS
from services.sandbox.languages import LANGUAGES, Absent, _look
from services.sandbox.languages.language import SELF_TEST_STDIN, SELF_TEST_STDOUT
from services.trainer.stages import STAGES
from tests.unit.docs.pages import ROOT, Block, blocks_of, rows_of, sections_of

MARK = "__is_an_example_of_the_docs__"
TABLES: tuple[Any, ...] = (
    TASKS,
    SOURCES,
    SAMPLERS,
    GRADERS,
    ENGINES,
    ENVIRONMENTS,
    STAGES,
    LANGUAGES,
    FORMATS,
    SHAPING,
)
PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = {title: text for title, text in sections_of(PAGE).items() if "```" in text}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Tables and modules are afterwards what they were."""
    rows, modules = [dict(table) for table in TABLES], set(sys.modules)
    yield
    for table, before in zip(TABLES, rows, strict=True):
        table.clear()
        table.update(before)
    made = [name for name in sys.modules.keys() - modules if vars(sys.modules[name]).get(MARK)]
    for name in made:
        parent, _, child = name.rpartition(".")
        del sys.modules[name]
        delattr(sys.modules[parent], child)


@pytest.mark.parametrize("title", SECTIONS)
def test_an_example_does_what_it_says(title: str) -> None:
    execute(SECTIONS[title])


def execute(section: str) -> dict[str, Any]:
    """Runs a section from top to bottom; returns the names that it leaves."""
    names: dict[str, Any] = {}
    for block in blocks_of(section):
        first = block.text.partition("\n")[0]
        if block.language == "toml":
            names["recipe"] = check_recipe(minimal() | tomllib.loads(block.text))
        elif block.language == "python" and first.startswith("# ") and first.endswith(".py"):
            make_module(first.removeprefix("# "), block)
        elif block.language == "python":
            exec(compile(block.text, "docs/extending.md", "exec"), names)
    return names


def minimal() -> dict[str, Any]:
    """Tables that a recipe must have."""
    return {
        "name": "example",
        "model": {"path": "somewhere"},
        "prompts": {"source": "task", "name": "search"},
        "reward": {"graders": [{"name": "exact"}]},
        "trainer": {"num_iterations": 1},
    }


def make_module(path: str, block: Block) -> None:
    """A file of the docs as the module that it would be there."""
    assert not (ROOT / path).exists(), f"{path} exists already; the example needs another name"
    parent, _, name = path.removesuffix(".py").replace("/", ".").rpartition(".")
    module = types.ModuleType(f"{parent}.{name}" if parent else name)
    setattr(module, MARK, True)
    if parent:
        sys.modules[module.__name__] = module
        setattr(importlib.import_module(parent), name, module)
    exec(compile(block.text, path, "exec"), vars(module))


def test_every_table_of_extensions_has_its_section_and_names_real_places() -> None:
    rows = rows_of(PAGE.partition("## ")[0])[1:]
    assert len(rows) == len([title for title in sections_of(PAGE) if title.startswith(("A ", "An "))])
    for _, file, table, *_ in rows:
        if table != "none":
            assert (ROOT / table.strip("`")).is_file(), table
            assert (ROOT / file.strip("`")).parent.is_dir(), file


def test_an_objective_is_one_file_and_one_row(tmp_path: Path) -> None:
    """In a copy of the package that clients install: its recipe is read, and its groups are judged, without torch."""
    shutil.copytree(ROOT / "perilune", tmp_path / "perilune", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    file, row, *_ = blocks_of(SECTIONS["An objective"])
    (tmp_path / "perilune" / "objectives" / "sign.py").write_text(file.text)
    table = tmp_path / "perilune" / "objectives" / "__init__.py"
    imported, last, *added = [line[1:] for line in row.text.splitlines()]
    text = table.read_text().replace("\n\n\ndef", f"\n{imported}\n\n\ndef", 1)
    assert text.count(last) == 1
    table.write_text(text.replace(last, "\n".join(added)))
    told = subprocess.run(
        [sys.executable, "-c", READ_WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["sign", "3.0", "[0.5,", "1.5]", "True"]


READ_WITHOUT_TORCH = """
import sys
from perilune.objectives.shaping import Response
from perilune.recipe import load_recipe
sets = ["trainer.objective=", "trainer.objective.type=sign", "trainer.objective.scale=3", "reward.length.weight=1"]
recipe = load_recipe("recipes/rloo.toml", sets)
objective = recipe.trainer.objective
rewards = objective.rewards([Response(1, 9, True, False), Response(1, 4, True, False)], recipe.reward, 0)
print(objective.type, objective.scale, rewards, objective.prefers(rewards))
assert not sys.modules.keys() & {"torch", "numpy", "services"}
"""


async def test_the_grader_of_ones_own_is_served_and_asked(tmp_path: Path) -> None:
    file = tmp_path / "polite.py"
    file.write_text(blocks_of(SECTIONS["A custom grader"])[0].text)
    function, version = load_function(f"{file}:polite")
    server, address = await start_grader(function, version)
    async with plugged_in({"polite": address}):
        grader = find_grader("polite")
        assert grader.ask
        verdict = await grader.ask(GradingSample("", "", "Kindly go"), grader.read_options({"word": "kindly"}))
    await server.stop(None)
    assert verdict
    assert (verdict.value, verdict.version) == (1.0, version)


@pytest.mark.slow
async def test_the_language_passes_the_self_test_that_the_service_gives_it(tmp_path: Path) -> None:
    execute(SECTIONS["A language"])
    language = LANGUAGES["awk"]
    found = await asyncio.to_thread(_look, language, {}, None)
    if isinstance(found, Absent):
        pytest.skip(found.reason)
    source = language.source(language.self_test)
    (tmp_path / source.main).write_text(source.text)
    process = await asyncio.create_subprocess_exec(
        *language.run(found.tools, source, ""),
        cwd=tmp_path,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert (await process.communicate(SELF_TEST_STDIN))[0] == SELF_TEST_STDOUT
