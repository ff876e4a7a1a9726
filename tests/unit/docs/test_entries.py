"""Every service begins alike: `__main__` starts `server.py:run` with the service's settings, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[3] / "services"
NAMES = sorted(folder.parent.name for folder in SERVICES.glob("*/__main__.py"))


def test_there_are_six_services() -> None:
    assert NAMES == ["master", "relay", "reward", "rollout", "sandbox", "trainer"]


@pytest.mark.parametrize("name", NAMES)
def test_main_starts_run_of_server(name: str) -> None:
    module = ast.parse((SERVICES / name / "__main__.py").read_text())
    _docstring, _import, imports, guard = module.body
    assert isinstance(imports, ast.With)
    assert ast.unparse(imports.items[0]) == "uncollected()"
    assert f"from services.{name}.server import run" in [ast.unparse(line) for line in imports.body]
    assert isinstance(guard, ast.If)
    (call,) = guard.body
    assert ast.unparse(call).startswith(f"main('{name}', ")
    assert ast.unparse(call).endswith(", run)")


@pytest.mark.parametrize("name", NAMES)
def test_run_is_the_first_definition_of_server(name: str) -> None:
    module = ast.parse((SERVICES / name / "server.py").read_text())
    first = next(
        node for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )
    assert isinstance(first, ast.AsyncFunctionDef)
    assert first.name == "run"
    assert [argument.arg for argument in first.args.args] == ["service"]
    assert ast.get_docstring(first)
