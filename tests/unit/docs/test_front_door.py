"""The files that a newcomer meets first say commands that exist, and the same ones everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from tests.unit.docs.pages import ROOT

COMMANDS = {f"make {target}" for target in re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)}


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_hosted_ci_calls_the_commands_of_a_developer_and_all_that_ci_calls() -> None:
    steps = [step for job in read(".github/workflows/ci.yml")["jobs"].values() for step in job["steps"]]
    called = {step["run"] for step in steps if "run" in step}
    ours = {command for command in called if not command.startswith("sudo apt-get ")}
    assert ours <= COMMANDS | {".ci/run"}
    assert ".ci/run" in ours
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_hooks_are_local_and_call_the_makefile() -> None:
    repositories = read(".pre-commit-config.yaml")["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    assert {hook["entry"] for hook in repositories[0]["hooks"]} <= COMMANDS


def test_the_wheel_has_types_and_the_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "perilune" / "py.typed").exists()
    assert all((ROOT / file).exists() for file in project["license-files"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert all(
        f"!{file}" in ignored for file in [*project["license-files"], project["readme"]]
    )  # images build from them


def test_the_changelog_ends_at_the_version_and_begins_with_what_is_unreleased() -> None:
    headings = re.findall(r"^## \[([^\]]+)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == version
    assert all(re.fullmatch(r" - \d{4}-\d{2}-\d{2}", date) for _, date in headings[1:])


def test_the_chart_has_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert read("deploy/helm/perilune/Chart.yaml")["appVersion"] == version


def test_contributing_says_which_command_checks_what() -> None:
    text = Path(ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"^\| `(make [a-z-]+|\.ci/run)`", text, re.MULTILINE))
    assert {"make lint", "make test", "make test-unit", ".ci/run"} <= named <= COMMANDS | {".ci/run"}
