"""C, by gcc or clang."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools

_MAIN = re.compile(r"^[\w\s]*\bmain\s*\([^)]*\)\s*\{", re.M)
# Headers; the compilers' own parts lie in /usr/lib.
ROOTS = (*SYSTEM, Path("/usr/include"), Path("/usr/local/include"))


def _build(tools: Tools, source: Source) -> Sequence[str]:
    flags = ["-O2", "-std=gnu17", "-w", "-o", "main"]
    return [str(tools["cc"]), *flags, *source.with_extension(".c"), *source.arguments, "-lm", "-pthread"]


def with_tests(program: str, tests: str, word: str) -> str:
    """The word is said when `main` is left, and not when the process is: at the end of the life of a variable in it."""
    text, end = f"{program}\n{tests}", f"end_{word}"
    says = f'static void {end}(int *at) {{ (void)at; __builtin_printf("{word}\\n"); }}'
    mains = list(_MAIN.finditer(text))
    if not mains:
        return text
    start, inside = mains[-1].span()
    guard = f"__attribute__((cleanup({end}))) int until_{word} = 0;"
    return f"{text[:start]}{says}\n{text[start:inside]} {guard} {text[inside:]}"


LANGUAGE = Language(
    name="c",
    extension=".c",
    needs={"cc": ("gcc", "clang", "cc")},
    install="apt-get install gcc libc6-dev",
    version=lambda tools: [str(tools["cc"]), "--version"],
    build=_build,
    keep=("main",),
    run=lambda _tools, _source, built: [f"{built}/main"],
    roots=lambda _: ROOTS,
    with_tests=with_tests,
    self_test=r"""
#include <math.h>
#include <stdio.h>
int main(void) { double a, b; if (scanf("%lf %lf", &a, &b) != 2) return 1; printf("%.0f\n", pow(a, 2) + b * b); }
""",
)
