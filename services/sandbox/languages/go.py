"""Go: compiler and linker are called directly, with the standard library's packages built beforehand.

`go build` would look into a module and a build cache for each program; this takes a third of a second.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools

_LIST = ["list", "-export", "-f", "{{if .Export}}packagefile {{.ImportPath}}={{.Export}}{{end}}", "std"]
# Go 1.20 and later come without built packages; building all of them takes a minute, once.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "perilune" / "go"

_MAIN = re.compile(r"\bfunc\s+main\s*\(\s*\)")


def _roots(tools: Tools) -> Sequence[Path]:
    environment = os.environ | {"GOCACHE": str(_CACHE / "build"), "GOFLAGS": "-mod=mod", "GO111MODULE": "on"}

    def go(*arguments: str) -> str:
        command = [str(tools["go"]), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=True, env=environment, cwd="/"
        ).stdout

    root = Path(go("env", "GOROOT").strip())
    _CACHE.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed: services that start together read a whole file.
    with tempfile.NamedTemporaryFile("w", dir=_CACHE, delete=False) as table:
        table.write(go(*_LIST))
    Path(table.name).chmod(0o644)
    Path(table.name).replace(_CACHE / "packages")
    return (*SYSTEM, root, Path("/usr/share/" + root.name), _CACHE)


def _build(tools: Tools, source: Source) -> Sequence[str]:
    go, table = shlex.quote(str(tools["go"])), shlex.quote(str(_CACHE / "packages"))
    sources = shlex.join(source.with_extension(".go"))
    compile_ = f"{go} tool compile -p main -importcfg {table} {shlex.join(source.arguments)} -o main.a {sources}"
    link = f"{go} tool link -importcfg {table} -s -w -o main main.a"
    return ["/bin/sh", "-c", f"{compile_} && {link}"]


def _with_tests(program: str, tests: str, word: str) -> str:
    text = _MAIN.sub(f"func tests_{word}()", f"{program}\n{tests}")
    return f'{text}\nfunc main() {{ tests_{word}(); println("{word}") }}\n'


LANGUAGE = Language(
    name="go",
    aliases=("golang",),
    extension=".go",
    needs={"go": ("go",)},
    install="apt-get install golang-go",
    version=lambda tools: [str(tools["go"]), "version"],
    build=_build,
    keep=("main",),
    run=lambda _tools, _source, built: [f"{built}/main"],
    roots=_roots,
    not_in_images="the standard library of its Go would have to be built for each program; use the service's own",
    environment={"GOCACHE": "/tmp/go", "GOTELEMETRY": "off"},
    with_tests=_with_tests,
    self_test="""
package main

import "fmt"

func main() {
	var a, b int
	fmt.Scan(&a, &b)
	fmt.Println(a*a + b*b)
}
""",
)
