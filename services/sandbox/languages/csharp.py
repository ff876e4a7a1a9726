"""C#, by Mono."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools


def _build(tools: Tools, source: Source) -> Sequence[str]:
    libraries = ["-r:System.Core.dll", "-r:System.Numerics.dll"]
    flags = ["-optimize+", "-nowarn:0168,0219,0414", "-out:main.exe", *libraries]
    return [str(tools["mcs"]), *flags, *source.arguments, *source.with_extension(".cs")]


LANGUAGE = Language(
    name="csharp",
    aliases=("c#", "cs"),
    extension=".cs",
    needs={"mcs": ("mcs",), "mono": ("mono",)},
    install="apt-get install mono-mcs mono-runtime",
    version=lambda tools: [str(tools["mcs"]), "--version"],
    build=_build,
    keep=("main.exe",),
    run=lambda tools, _source, built: [str(tools["mono"]), f"{built}/main.exe"],
    roots=lambda _: (*SYSTEM, Path("/etc/mono")),
    overhead_bytes=64 << 20,
    self_test="""
using System;
using System.Linq;

class Program {
    static void Main() {
        Console.WriteLine(Console.ReadLine().Split(' ').Select(int.Parse).Sum(n => n * n));
    }
}
""",
)
