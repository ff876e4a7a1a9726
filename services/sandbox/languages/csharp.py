"""C#, by Mono."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools

_END = "PeriluneEnd"
_ENDS = re.compile(rf"^static class ({_END}\w+)", re.M)


def _build(tools: Tools, source: Source) -> Sequence[str]:
    libraries = ["-r:System.Core.dll", "-r:System.Numerics.dll"]
    flags = ["-optimize+", "-nowarn:0168,0219,0414", "-out:main.exe", *libraries]
    flags += [f"-main:{name}" for name in _ENDS.findall(source.text)[-1:]]
    return [str(tools["mcs"]), *flags, *source.arguments, *source.with_extension(".cs")]


def _with_tests(program: str, tests: str, word: str) -> str:
    """Started is a class of ours, which finds the tests' own `Main`, public or not."""
    return f"""{program}
{tests}
static class {_END}{word} {{
    static int Main(string[] arguments) {{
        var flags = System.Reflection.BindingFlags.Static | System.Reflection.BindingFlags.Public
            | System.Reflection.BindingFlags.NonPublic;
        foreach (var type in System.Reflection.Assembly.GetExecutingAssembly().GetTypes()) {{
            var main = type.GetMethod("Main", flags);
            if (main == null || type == typeof({_END}{word})) continue;
            var status = main.Invoke(null, main.GetParameters().Length == 0 ? null : new object[] {{ arguments }});
            var said = System.Text.Encoding.ASCII.GetBytes("{word}\\n");
            System.Console.OpenStandardOutput().Write(said, 0, said.Length);
            return status is int ? (int)status : 0;
        }}
        return 1;
    }}
}}
"""


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
    with_tests=_with_tests,
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
