"""Lean 4: a file that is checked without errors is OK, and `main` runs where there is one."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools, last_line


def _prefix(tools: Tools) -> Path:
    answer = subprocess.run([tools["lean"], "--print-prefix"], capture_output=True, text=True, timeout=60, check=True)
    return Path(answer.stdout.strip())


def _run(tools: Tools, source: Source, _built: str) -> Sequence[str]:
    runs = "def main" in source.text
    return [str(tools["lean"]), *(["--run"] if runs else []), source.main]


LANGUAGE = Language(
    name="lean",
    aliases=("lean4",),
    extension=".lean",
    needs={"lean": ("lean",)},
    install="get a toolchain from https://lean-lang.org, and name its bin/lean in PERILUNE_TOOLS",
    version=lambda tools: [str(tools["lean"]), "--version"],
    run=_run,
    roots=lambda tools: (*SYSTEM, _prefix(tools)),
    overhead_bytes=1 << 30,
    with_tests=last_line('#eval IO.println "WORD"'),
    self_test="""
def main : IO Unit := do
  let line <- (<- IO.getStdin).getLine
  let numbers := (line.trim.splitOn " ").map String.toNat!
  IO.println (numbers.foldl (fun sum n => sum + n * n) 0)
""",
)
