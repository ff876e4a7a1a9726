"""Python: the interpreter of the services' own environment, without its packages, unless another is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools


def _roots(tools: Tools) -> Sequence[Path]:
    """The installation, and the virtual environment where it is one."""
    ask = "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"
    answer = subprocess.run([tools["python"], "-I", "-c", ask], capture_output=True, text=True, timeout=30, check=True)
    prefixes = [Path(line) for line in answer.stdout.splitlines()]
    return (*SYSTEM, *dict.fromkeys(path for path in prefixes if path != Path("/usr")))


def _run(tools: Tools, source: Source, _built: str) -> Sequence[str]:
    return [str(tools["python"]), source.main]


LANGUAGE = Language(
    name="python",
    aliases=("python3", "py"),
    extension=".py",
    needs={"python": (getattr(sys, "_base_executable", sys.executable), "python3")},
    install="apt-get install python3, or name an interpreter in PERILUNE_TOOLS",
    version=lambda tools: [str(tools["python"]), "--version"],
    run=_run,
    roots=_roots,
    environment={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8:surrogateescape", "PYTHONHASHSEED": "0"},
    warm="python",
    has_sessions=True,
    self_test="a, b = map(int, input().split())\nprint(sum(n * n for n in (a, b)))\n",
)
