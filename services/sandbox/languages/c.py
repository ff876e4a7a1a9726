"""C, by gcc or clang."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools

# Headers; the compilers' own parts lie in /usr/lib.
ROOTS = (*SYSTEM, Path("/usr/include"), Path("/usr/local/include"))


def _build(tools: Tools, source: Source) -> Sequence[str]:
    flags = ["-O2", "-std=gnu17", "-w", "-o", "main"]
    return [str(tools["cc"]), *flags, *source.with_extension(".c"), *source.arguments, "-lm", "-pthread"]


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
    self_test=r"""
#include <math.h>
#include <stdio.h>
int main(void) { double a, b; if (scanf("%lf %lf", &a, &b) != 2) return 1; printf("%.0f\n", pow(a, 2) + b * b); }
""",
)
