"""Which frameworks are run: those that are installed, and the report says which are not.

Their dependencies exclude each other, so each is looked for in environments of its own: the Pythons that
PERILUNE_FRAMEWORK_PYTHONS names, separated by colons, and the one that runs the tests.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

FRAMEWORKS = {"areal", "openrlhf", "verifiers", "verl"}
PROBE = """
import importlib.metadata, json
print(json.dumps({each.name.lower(): each.version for each in importlib.metadata.distributions() if each.name}))
"""


@dataclass(frozen=True)
class Framework:
    name: str
    version: str
    python: str

    @property
    def driver(self) -> str:
        """The program that uses it, in drivers/."""
        return f"with_{self.name}.py"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@functools.cache
def installed() -> list[Framework]:
    return [framework for python in pythons() for framework in _installed_in(python)]


def pythons() -> list[str]:
    named = os.environ.get("PERILUNE_FRAMEWORK_PYTHONS", "")
    return [*filter(None, named.split(":")), sys.executable]


def _installed_in(python: str) -> Iterator[Framework]:
    probe = subprocess.run([python, "-c", PROBE], check=True, capture_output=True, text=True)
    found = json.loads(probe.stdout)
    for name in sorted(FRAMEWORKS & found.keys()):
        if (name, found[name][:4]) != ("verifiers", "0.4."):  # has no rubrics: its tasks call score_trace themselves
            yield Framework(name, found[name], python)


collect_ignore = [] if installed() else ["test_frameworks.py"]  # the summary says so


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = installed()
    absent = FRAMEWORKS - {framework.name for framework in found}
    terminalreporter.write_line(
        f"frameworks run with the reward API: {', '.join(map(str, found)) or 'none'}; "
        f"not in PERILUNE_FRAMEWORK_PYTHONS: {', '.join(sorted(absent)) or 'none'} (docs/reward.md)"
    )
