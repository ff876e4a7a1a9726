"""What the docs name exists, and what exists is in the docs: settings, recipe keys, table rows, paths, links, code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from perilune.grading.codetests import FORMATS
from perilune.recipe import Recipe
from perilune.recipe.history import MOVED
from perilune.recipe.overrides import annotations_at, models_in
from perilune.settings import Settings
from services.master.prompts import SOURCES
from services.master.samplers import SAMPLERS
from services.reward.graders import GRADERS
from services.rollout.engines import ENGINES
from services.rollout.environments import ENVIRONMENTS
from services.sandbox.languages import LANGUAGES
from services.trainer.stages import STAGES
from tests.unit.docs.pages import NAMES, PAGES, ROOT, anchor, blocks_of, headings_of, prose_of, quoted_in, rows_of

SETTINGS_IN = (
    *("services.master.config", "services.rollout.standalone", "services.reward.config", "services.sandbox.config"),
    *("services.trainer.config", "services.trainer.reward_models.server"),
    *("services.reward.graders.judge", "services.reward.graders.code"),
)
# Read from the environment, and no field of a class.
OTHER_SETTINGS = {"PERILUNE_REWARD_ADDRESS", "PERILUNE_SPARE", "OTEL_EXPORTER_OTLP_ENDPOINT"}
FILE_ENDINGS = ("py", "md", "toml", "jsonl", "json", "yml", "yaml", "proto", "frames", "safetensors", "db", "png", "sh")
RECIPE_KEY = re.compile(rf"(?:^|(?<=--set )|(?<=\s))((?:{'|'.join(Recipe.model_fields)})(?:\.\w+)+)(?=$|[\s=,:\[])")
ELSEWHERE = {"reward.custom_reward_function.path", "prompts.jsonl"}  # verl's keys; a file


def page(name: str) -> str:
    return (ROOT / name).read_text()


def all_text() -> str:
    return "\n".join(path.read_text() for path in PAGES)


# Settings.


def settings() -> dict[str, list[Any]]:
    """Every variable that a class of settings reads, with its default in each class that has it."""
    for module in SETTINGS_IN:
        importlib.import_module(module)
    found: dict[str, list[Any]] = {}
    classes = list(below(Settings))
    for table in classes:
        for name, field in table.model_fields.items():
            if field.annotation not in classes:
                found.setdefault(table._variable(name), []).append(field.get_default(call_default_factory=True))
    return found


def below(table: type[Settings]) -> Iterator[type[Settings]]:
    for child in table.__subclasses__():
        yield child
        yield from below(child)


def variables_in(cell: str, known: set[str]) -> list[str]:
    """The variables of a table's cell; `_KEY` behind `PERILUNE_TLS_CERT` is the one with that other end."""
    found: list[str] = []
    for name in re.findall(r"`([A-Z]*_[A-Z0-9_]+|RANK)`", cell):
        if name.startswith("_") and found:
            parts = found[0].split("_")
            ends = ["_".join(parts[:length]) + name for length in range(len(parts) - 1, 0, -1)]
            found.append(next((end for end in ends if end in known), f"{found[0]} with {name}"))
        else:
            found.append(name)
    return found


def documented() -> dict[str, list[str]]:
    """The variables of all tables, with what each row says of the default."""
    known = set(settings())
    found: dict[str, list[str]] = {}
    for row in (row for name in NAMES for row in rows_of(page(name)) if len(row) > 2):
        variables = variables_in(row[0], known)
        defaults = [part.strip(" `") for part in row[1].split(", ")]
        for number, variable in enumerate(variables):
            default = defaults[number] if len(defaults) == len(variables) else row[1]
            found.setdefault(variable, []).append(default)
    return found


def test_every_setting_is_in_a_table_of_the_docs() -> None:
    assert sorted((set(settings()) | OTHER_SETTINGS) - set(documented())) == []


def test_every_variable_that_is_named_is_read_somewhere() -> None:
    code = "\n".join(
        path.read_text(errors="replace")
        for folder in ("perilune", "services", "tests", "deploy", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sh", ".yml", ".yaml") and path.parent != Path(__file__).parent
    )
    known = set(settings()) | set(re.findall(r"PERILUNE_[A-Z0-9_]*[A-Z0-9]", code))
    named = set(re.findall(r"PERILUNE_[A-Z0-9_]*[A-Z0-9]", all_text()))
    assert sorted(named - known) == []
    assert sorted(name for name in documented() if " with " in name) == []


def test_a_number_that_a_table_gives_as_a_default_is_the_default() -> None:
    wrong = {
        variable: (said, defaults[variable])
        for defaults in [settings()]
        for variable, sayings in documented().items()
        for said in sayings
        if re.fullmatch(r"\d+(\.\d+)?", said) and float(said) not in defaults.get(variable, [float(said)])
    }
    assert wrong == {}


# Recipes.


def keys_in(text: str) -> set[str]:
    code = [block.text for block in blocks_of(text) if block.language != "toml"]
    return {key for part in (*quoted_in(text), *code) for key in RECIPE_KEY.findall(part)}


def is_recipe_key(key: str) -> bool:
    path = [int(part) if part.isdigit() else part for part in key.split(".")]
    return bool(annotations_at(Recipe, path))


def is_chart_value(key: str) -> bool:
    found: Any = yaml.safe_load(page("deploy/helm/perilune/values.yaml"))
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return False
        found = found[part]
    return True


def is_file(key: str) -> bool:
    return key.rpartition(".")[2] in FILE_ENDINGS


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_key_that_is_named_exists(name: str) -> None:
    unknown = {key for key in keys_in(page(name)) - ELSEWHERE if not is_file(key)}
    if name == "docs/recipes.md":
        unknown -= {"trainer.objective.taw"}  # which that page has refused
    assert sorted(key for key in unknown if not is_recipe_key(key) and not is_chart_value(key)) == []


def leaves(document: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(document, list) and document and isinstance(document[0], dict):
        document = {str(number): each for number, each in enumerate(document)}
    if not isinstance(document, dict):
        yield path
        return
    for key, value in document.items():
        yield from leaves(value, (*path, key))


@pytest.mark.parametrize("name", NAMES)
def test_recipes_in_blocks_have_keys_that_exist(name: str) -> None:
    tables = [tomllib.loads(block.text) for block in blocks_of(page(name)) if block.language == "toml"]
    keys = [leaf for table in tables for leaf in leaves(table) if leaf[0] in Recipe.model_fields]
    assert [key for key in keys if not is_recipe_key(".".join(key))] == []


def test_every_table_of_a_recipe_is_in_the_tour() -> None:
    tables = {key for key, field in Recipe.model_fields.items() if models_in(field.annotation)}
    named = set(re.findall(r"`\[+(\w+)", page("docs/recipes.md")))
    assert sorted(tables - named) == []


MESSAGE_KEY = re.compile(rf"(?<![\w.\[/-])((?:{'|'.join(Recipe.model_fields)})(?:\.[a-z_0-9]+)+)(?![\w.(/])")
NO_KEYS = (
    "reward.custom_reward_function",
    "sampling.draw",
    "trainer.pt",
    "rollout.standalone",
)  # verl's; code's; a file's


def texts_of(path: Path) -> Iterator[str]:
    """What a program says and how it documents itself; of a recipe, the comments."""
    if path.suffix == ".toml":
        yield from (line.partition("#")[2] for line in path.read_text().splitlines())
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_recipe_key_that_our_own_messages_name_exists() -> None:
    files = [path for top in ("perilune", "services") for path in (ROOT / top).rglob("*.py")]
    code = [path for path in files if not path.is_relative_to(ROOT / "perilune" / "api")]
    named = {
        (str(path.relative_to(ROOT)), key)
        for path in (*code, *(ROOT / "recipes").glob("*.toml"))
        for text in texts_of(path)
        for key in MESSAGE_KEY.findall(text)
        if not key.startswith(NO_KEYS) and not is_file(key) and ".safetensors" not in key
    }
    assert sorted(found for found in named if not is_recipe_key(found[1]) and found[1] not in MOVED) == []


# Tables of the code.


def first_cells(name: str) -> set[str]:
    return {word for row in rows_of(page(name)) for word in re.findall(r"`([^`]+)`", row[0])}


def test_graders_and_their_options_are_those_of_the_table() -> None:
    rows = {row[0].strip("`"): row for row in rows_of(page("docs/graders.md")) if row[0].strip("`") in GRADERS}
    assert {name: re.findall(r"`(\w+)`", row[2]) for name, row in rows.items()} == {
        name: list(grader.options.model_fields) for name, grader in GRADERS.items()
    }


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("docs/rollouts.md", {get_args(table.model_fields["type"].annotation)[0] for table in ENVIRONMENTS}),
        ("docs/engines.md", set(ENGINES)),
        ("docs/sandbox.md", set(FORMATS)),
        ("docs/stages.md", {get_args(table.model_fields["type"].annotation)[0] for table in STAGES}),
        ("docs/recipes.md", {get_args(table.model_fields["source"].annotation)[0] for table in SOURCES}),
        ("docs/recipes.md", {get_args(table.model_fields["type"].annotation)[0] for table in SAMPLERS}),
    ],
)
def test_each_row_of_a_table_in_the_code_has_one_in_the_docs(name: str, rows: set[str]) -> None:
    assert sorted(rows - first_cells(name)) == []


def test_every_language_has_its_names_in_the_docs() -> None:
    named = {word for row in rows_of(page("docs/sandbox.md")) for word in re.findall(r"`([^`]+)`", row[1])}
    assert sorted(set(LANGUAGES) - named) == []


def test_every_alert_is_in_the_docs() -> None:
    groups = yaml.safe_load(page("deploy/prometheus/alerts.yml"))["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert alerts == {cell for cell in first_cells("docs/deploy.md") if cell in alerts or cell.endswith("Silent")}


# Paths, links and code.


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page(name))):
        file, _, heading = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        if "://" in target:
            continue
        if not path.exists() or (heading and heading not in map(anchor, headings_of(path.read_text()))):
            broken.append(target)
    assert broken == []


def test_the_tree_of_the_architecture_is_that_of_the_code() -> None:
    tree = blocks_of(page("docs/architecture.md").partition("## The tree")[2])[0].text
    named = set(re.findall(r"(?<!\S)((?:perilune|services)/\S+)/(?!\S)", tree))
    packages = {
        str(file.parent.relative_to(ROOT))
        for top in ("perilune", "services")
        for file in ROOT.glob(f"{top}/**/__init__.py")
    }
    inner = ("perilune/api", "services/sandbox/harness/")  # generated; one folder around another
    assert named == {package for package in packages if "/" in package and not package.startswith(inner)}


def test_every_call_that_is_named_is_in_a_proto() -> None:
    calls = {
        f"{service}.{call}"
        for path in (ROOT / "protos").rglob("*.proto")
        for service, body in re.findall(r"^service (\w+) \{(.*?)^\}", path.read_text(), re.MULTILINE | re.DOTALL)
        for call in re.findall(r"rpc (\w+)", body)
    }
    named = {found for path in PAGES for found in re.findall(r"\b([A-Z]\w+Service\.[A-Z]\w+)", path.read_text())}
    assert sorted(named - calls) == []


TOP = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("runs", "dist", "build")]
PATH = re.compile(rf"(?<![\w./~-])((?:{'|'.join(map(re.escape, TOP))})/[\w./*-]*\w)")
MADE = ("deploy/secrets/",)  # by make.sh there


@pytest.mark.parametrize("name", NAMES)
def test_every_path_that_is_named_exists(name: str) -> None:
    text = page(name)
    code = [block.text for block in blocks_of(text) if block.language in ("sh", "")]
    paths = {path for part in (*quoted_in(text), *code) for path in PATH.findall(part)}
    plain = {path for path in paths if not path.startswith(MADE) and "NAME" not in path}
    assert sorted(path for path in plain if not any(ROOT.glob(path))) == []


@pytest.mark.parametrize("name", NAMES)
def test_python_in_blocks_parses_and_imports_names_that_exist(name: str) -> None:
    for block in blocks_of(page(name)):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("perilune"):
                assert node.module
                module = importlib.import_module(node.module)
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert missing == [] or name == "docs/extending.md", block.text


def test_every_module_that_is_to_be_started_exists() -> None:
    named = set(re.findall(r"python -m ((?:perilune|services|benchmarks|tests)[\w.]*\w)", all_text()))
    assert named
    assert sorted(module for module in named if importlib.util.find_spec(module) is None) == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), re.MULTILINE))
    quoted = [part for path in PAGES for part in quoted_in(path.read_text())]
    code = [block.text for path in PAGES for block in blocks_of(path.read_text()) if block.language == "sh"]
    named = {target for part in (*quoted, *code) for target in re.findall(r"^(?:.*&& )?make ([a-z-]+)", part, re.M)}
    assert sorted(named - targets) == []


def test_every_page_is_named_in_the_readme_and_every_example_and_recipe_exists() -> None:
    readme = page("README.md")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert sorted(stem for stem in pages if not re.search(rf"\b{stem}\b", readme)) == []
    recipes = {Path(found).name for found in re.findall(r"recipes/[\w-]+\.toml", all_text())}
    assert sorted(recipe for recipe in recipes if not (ROOT / "recipes" / recipe).exists()) == []
