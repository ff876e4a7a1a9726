"""The laws of docs/architecture.md about imports: where torch may be, and who may know whom."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "accelerate"}


@functools.cache
def imported_by(path: Path) -> list[str]:
    """The modules that a file imports, inside functions too; without what only a type checker reads."""
    return list(imports_in(ast.parse(path.read_text())))


def imports_in(tree: ast.Module) -> Iterator[str]:
    for branch in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING":
            branch.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_in_the_shared_package_torch_is_imported_in_models_alone() -> None:
    for path in (ROOT / "perilune").rglob("*.py"):
        if path.is_relative_to(ROOT / "perilune" / "models"):
            continue
        assert not HEAVY & {name.partition(".")[0] for name in imported_by(path)}, path


def test_services_import_the_shared_package_and_themselves() -> None:
    for path in (ROOT / "perilune").rglob("*.py"):
        if not path.is_relative_to(ROOT / "perilune" / "cli"):  # commands that show what a service would do
            assert not [name for name in imported_by(path) if name.partition(".")[0] == "services"], path
    for path in (ROOT / "services").rglob("*.py"):
        own = path.relative_to(ROOT / "services").parts[0]
        others = {name.split(".")[1] for name in imported_by(path) if name.startswith("services.")} - {own}
        assert not others, (path, others)


@pytest.mark.slow  # a process for each
@pytest.mark.parametrize(
    "modules",
    [
        "perilune.client, perilune.recipe, perilune.grading, perilune.data, perilune.tasks",
        "perilune.models, perilune.models.chat, perilune.models.probe, perilune.weights, perilune.local",
        "perilune.runtime.service, perilune.runtime.bus, perilune.cli.commands",
    ],
)
def test_what_clients_and_the_command_line_import_brings_no_torch(modules: str) -> None:
    program = f"import sys, {modules}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow  # a process for each
@pytest.mark.parametrize("service", ["master", "reward", "sandbox", "relay"])
def test_a_service_imports_only_what_its_extra_installs(service: str) -> None:
    """An image holds the packages of its service's extra and no others; this environment holds all of them."""
    allowed = distributions_of(f"perilune[{service}]")
    foreign = sorted(
        name for name, owners in metadata.packages_distributions().items() if not {normal(o) for o in owners} & allowed
    )
    program = f"""
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {foreign!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refusing())
import services.{service}.server
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert not done.returncode, done.stderr


def distributions_of(requirement: str) -> set[str]:
    """A requirement's distributions with all that they need here, by their normal names."""
    found: set[str] = set()
    waiting = [Requirement(requirement)]
    seen: set[str] = set()
    while waiting:
        each = waiting.pop()
        if str(each) in seen:
            continue
        seen.add(str(each))
        found.add(normal(each.name))
        waiting += our_needs(each.extras) if each.name == "perilune" else needs_of(each)
    return found


def our_needs(extras: set[str]) -> list[Requirement]:
    """What pyproject.toml says of our own extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


def needs_of(requirement: Requirement) -> list[Requirement]:
    """What an installed distribution needs itself; nothing for one of another system."""
    try:
        needed = [Requirement(text) for text in metadata.requires(requirement.name) or []]
    except metadata.PackageNotFoundError:
        return []
    extras = {*requirement.extras, ""}
    return [each for each in needed if not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)]


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
