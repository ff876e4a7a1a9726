"""Java, by javac. The class that starts is the public one, else the one around `main`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from services.sandbox.languages.language import SYSTEM, Language, Source, Tools

# Small heap and one compiler tier: a program that runs for a second need not be tuned for an hour.
_JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xss64m", "-ea"]
_PUBLIC = re.compile(
    r"^\s*public\s+(?:(?:final|abstract|sealed|strictfp)\s+)*(?:class|enum|record|interface)\s+(\w+)", re.M
)
_CLASS = re.compile(r"^(?:(?:final|abstract|sealed|strictfp)\s+)*(?:class|enum|record|interface)\s+(\w+)", re.M)
_MAIN = re.compile(r"\bstatic\s+(?:final\s+)?void\s+main\s*\(")
_END = "PeriluneEnd"
_ENDS = re.compile(rf"^class ({_END}\w+)", re.M)
_PACKAGE = re.compile(r"^\s*package\s+([\w.]+)\s*;", re.M)


def main_class(text: str) -> str:
    """The class to start: the public one, else the last top-level one that opens before `main`, else Main."""
    if public := _PUBLIC.search(text):
        return public[1]
    main = _MAIN.search(text)
    opened = [found[1] for found in _CLASS.finditer(text, 0, main.start() if main else len(text))]
    return opened[-1] if opened else "Main"


def _build(tools: Tools, source: Source) -> Sequence[str]:
    flags = ["-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1", "-encoding", "UTF-8", "-nowarn", "-d", "classes"]
    return [str(tools["javac"]), *flags, *source.arguments, *source.with_extension(".java")]


def _run(tools: Tools, source: Source, built: str) -> Sequence[str]:
    package = _PACKAGE.search(source.text)
    main = [main_class(source.text), *_ENDS.findall(source.text)][-1]
    name = f"{package[1]}.{main}" if package else main
    return [str(tools["java"]), *_JVM, "-cp", f"{built}/classes", name]


def _roots(tools: Tools) -> Sequence[Path]:
    home = tools["javac"].resolve().parent.parent
    return (*SYSTEM, home, *Path("/etc").glob("java-*-openjdk"))


def _with_tests(program: str, tests: str, word: str) -> str:
    """Started is a class of ours, which starts the tests' own."""
    text = f"{program}\n{tests}"
    out = "new java.io.PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out))"
    body = f'{main_class(text)}.main(arguments); {out}.println("{word}");'
    return (
        f"{text}\nclass {_END}{word} {{ public static void main(String[] arguments) throws Throwable {{ {body} }} }}\n"
    )


LANGUAGE = Language(
    name="java",
    extension=".java",
    needs={"javac": ("javac",), "java": ("java",)},
    install="apt-get install default-jdk-headless",
    version=lambda tools: [str(tools["javac"]), "--version"],
    main=lambda text: f"{main_class(text)}.java",
    build=_build,
    keep=("classes/**",),
    run=_run,
    roots=_roots,
    overhead_bytes=256 << 20,
    with_tests=_with_tests,
    self_test="""
import java.util.*;

public class Main {
    public static void main(String[] arguments) {
        Scanner in = new Scanner(System.in);
        List<Integer> numbers = List.of(in.nextInt(), in.nextInt());
        System.out.println(numbers.stream().mapToInt(n -> n * n).sum());
    }
}
""",
)
