"""Rust, by rustc alone: no crates but the standard library."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools

_MAIN = re.compile(r"\bfn\s+main\s*\(\s*\)")


def _resolve(tools: Tools) -> Tools:
    """The toolchain itself, behind rustup's shims where those are installed."""
    answer = subprocess.run(
        [tools["rustc"], "--print", "sysroot"], capture_output=True, text=True, timeout=60, check=True
    )
    return {**tools, "rustc": Path(answer.stdout.strip()) / "bin" / "rustc"}


def _roots(tools: Tools) -> Sequence[Path]:
    return (*SYSTEM, tools["rustc"].parent.parent)


def _build(tools: Tools, source: Source) -> Sequence[str]:
    return [str(tools["rustc"]), "-O", "--edition=2021", "-Awarnings", "-o", "main", source.main, *source.arguments]


def _with_tests(program: str, tests: str, word: str) -> str:
    text = _MAIN.sub(f"fn tests_{word}()", f"{program}\n{tests}")
    ending = f'let end = tests_{word}(); ::std::println!("{word}"); end'
    return f"{text}\nfn main() -> impl ::std::process::Termination {{ {ending} }}\n"


LANGUAGE = Language(
    name="rust",
    aliases=("rs",),
    extension=".rs",
    needs={"rustc": ("rustc",), "cc": ("cc", "gcc")},
    install="apt-get install rustc gcc",
    version=lambda tools: [str(tools["rustc"]), "--version"],
    build=_build,
    keep=("main",),
    run=lambda _tools, _source, built: [f"{built}/main"],
    resolve=_resolve,
    roots=_roots,
    with_tests=_with_tests,
    self_test="""
use std::io;

fn main() {
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    let total: i64 = line.split_whitespace().map(|n| n.parse::<i64>().unwrap().pow(2)).sum();
    println!("{}", total);
}
""",
)
