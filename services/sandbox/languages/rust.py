"""Rust, by rustc alone: no crates but the standard library."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools


def _sysroot(tools: Tools) -> Path:
    """The toolchain itself, behind rustup's shims where those are installed."""
    answer = subprocess.run(
        [tools["rustc"], "--print", "sysroot"], capture_output=True, text=True, timeout=60, check=True
    )
    return Path(answer.stdout.strip())


def _roots(tools: Tools) -> Sequence[Path]:
    return (*SYSTEM, _sysroot(tools))


def _build(tools: Tools, source: Source) -> Sequence[str]:
    compiler = _sysroot(tools) / "bin" / "rustc"
    return [str(compiler), "-O", "--edition=2021", "-Awarnings", "-o", "main", source.main, *source.arguments]


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
    roots=_roots,
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
