"""TypeScript: types are taken off by esbuild, or by tsc where only that is there; Node runs the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools, last_line


def _build(tools: Tools, source: Source) -> Sequence[str]:
    compiler = tools["compiler"]
    if compiler.name == "tsc":
        flags = ["--target", "es2022", "--module", "commonjs", "--skipLibCheck", "--noEmitOnError", "false"]
        return [str(compiler), *flags, "--outDir", "built", *source.arguments, *source.with_extension(".ts")]
    flags = ["--platform=node", "--format=cjs", "--outdir=built", "--log-level=warning"]
    return [str(compiler), *flags, *source.arguments, *source.with_extension(".ts")]


def _resolve(tools: Tools) -> Tools:
    """npm shows a package's programs by links."""
    compiler = tools["compiler"]
    return {**tools, "compiler": compiler if compiler.name == "tsc" else compiler.resolve()}


def _roots(tools: Tools) -> Sequence[Path]:
    packages = [parent for parent in tools["compiler"].resolve().parents if parent.name == "node_modules"]
    return (*SYSTEM, *packages[-1:])


LANGUAGE = Language(
    name="typescript",
    aliases=("ts",),
    extension=".ts",
    needs={"node": ("node", "nodejs"), "compiler": ("esbuild", "tsc")},
    install="apt-get install nodejs npm && npm install --global esbuild",
    version=lambda tools: [str(tools["compiler"]), "--version"],
    build=_build,
    keep=("built/**",),
    run=lambda tools, source, built: [str(tools["node"]), f"{built}/built/{Path(source.main).stem}.js"],
    resolve=_resolve,
    roots=_roots,
    overhead_bytes=64 << 20,
    with_tests=last_line('require("node:fs").writeSync(1, "WORD\\n");'),
    self_test="""
declare function require(name: string): any;
const numbers: number[] = require("fs").readFileSync(0, "utf8").split(" ").map(Number);
console.log(numbers.reduce((sum: number, n: number): number => sum + n * n, 0));
""",
)
