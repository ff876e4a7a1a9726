"""The laws of docs/architecture.md about imports: where torch may be, and who may know whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "accelerate"}


def imported_by(path: Path) -> Iterator[str]:
    """The modules that a file imports, inside functions too; without what only a type checker reads."""
    tree = ast.parse(path.read_text())
    for branch in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if ast.unparse(branch.test) == "TYPE_CHECKING":
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
