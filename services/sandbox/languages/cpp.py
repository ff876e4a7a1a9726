"""C++, by g++ or clang++."""

from __future__ import annotations

from collections.abc import Sequence

from services.sandbox.languages.c import ROOTS, with_tests
from services.sandbox.languages.language import Language, Source, Tools


def _build(tools: Tools, source: Source) -> Sequence[str]:
    flags = ["-O2", "-std=gnu++20", "-w", "-o", "main"]
    sources = source.with_extension(".cpp", ".cc", ".cxx")
    return [str(tools["c++"]), *flags, *sources, *source.arguments, "-pthread"]


LANGUAGE = Language(
    name="cpp",
    aliases=("c++", "cxx", "cc"),
    extension=".cpp",
    needs={"c++": ("g++", "clang++", "c++")},
    install="apt-get install g++",
    version=lambda tools: [str(tools["c++"]), "--version"],
    build=_build,
    keep=("main",),
    run=lambda _tools, _source, built: [f"{built}/main"],
    roots=lambda _: ROOTS,
    with_tests=with_tests,
    self_test=r"""
#include <iostream>
#include <numeric>
#include <vector>
int main() {
    std::vector<int> n(2);
    for (int &x : n) std::cin >> x;
    std::cout << std::inner_product(n.begin(), n.end(), n.begin(), 0) << std::endl;
}
""",
)
